"""A language model so small that it learns within seconds, of sentences that say what comes next."""

import dataclasses
import random
from pathlib import Path

from w2v2_jax.adaptive_softmax import AdaptiveWords
from w2v2_jax.context_network import ContextNetwork
from w2v2_jax.data.buckets import Bucket, FixedBuckets
from w2v2_jax.data.language import Lines, prepare_text, read_lines
from w2v2_jax.experiment import Experiment
from w2v2_jax.language_model import CausalLayer, LanguageModel, SinusoidalPositions
from w2v2_jax.language_task import LanguageModelling
from w2v2_jax.layers import Identity, LayerNorm
from w2v2_jax.optimizers import Adam, PolynomialDecay

LETTERS = "ABCDEFGH"
BUCKETS = FixedBuckets((Bucket(8, 16, 8),))


def sentence(number: int) -> str:
    """Up to seven letters, each the next of the alphabet; no other is possible behind the first."""
    rng = random.Random(number)
    first = rng.randrange(len(LETTERS))
    return " ".join(LETTERS[(first + place) % len(LETTERS)] for place in range(rng.randint(1, 7)))


def write_text(folder: Path) -> None:
    """Prepares the text `alphabet` under `folder`."""
    for split, numbers in (("train", range(300)), ("dev", range(300, 340))):
        (folder / f"{split}.txt").write_text("".join(f"{sentence(number)}\n" for number in numbers))
    splits = {split: [folder / f"{split}.txt"] for split in ("train", "dev")}
    prepare_text({split: [*read_lines(files)] for split, files in splits.items()}, "alphabet", folder, max_words=16)


def model(dropout: float = 0.0) -> LanguageModel:
    layer = CausalLayer(2, 32, dropout, dropout, dropout)
    network = ContextNetwork(1, layer, Identity, LayerNorm, SinusoidalPositions(), dropout, layer_drop=0.0)
    return LanguageModel(AdaptiveWords(16, 16, (4,)), network)


def experiment(data_dir: Path, dropout: float = 0.0, **changes) -> Experiment:
    text = {"num_words": 16, "buckets": BUCKETS, "data_dir": data_dir}
    made = Experiment(
        name="alphabet",
        task=LanguageModelling(model(dropout)),
        train_data=Lines("alphabet", "train", **text),
        valid_data=Lines("alphabet", "dev", **text),
        optimizer=Adam(PolynomialDecay(peak=2e-2, warmup_steps=2), weight_decay=0.0),
        num_steps=8,
        log_every=3,
        eval_every=5,
        save_every=2,
    )
    return dataclasses.replace(made, **changes)
