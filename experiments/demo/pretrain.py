"""A tiny model pretrained on synthetic speech: w2v2 train experiments.demo.pretrain

Data      w2v2 prepare espeak --name espeak_demo --train-minutes 60 --labelled-minutes 5 --dev-minutes 1 \
              --test-minutes 5 --num-speakers 16 --lexicon 0.12
Hardware  two CPU cores, about three minutes.
Expect    contrastive accuracy 0.2 (chance 0.02) and rising.

The architecture and the objective are the paper's, the sizes are not. A run this short needs a quantizer that settles
within hundreds of steps: the Gumbel temperature falls accordingly fast. The feature penalty and the scaled gradients
of the feature encoder, which steady long runs of BASE, are left out.
"""

from w2v2_jax.data.corpora import default_data_dir
from w2v2_jax.data.pipeline import Clips
from w2v2_jax.data.records import Corpus
from w2v2_jax.experiment import Experiment
from w2v2_jax.masking import MaskSpans
from w2v2_jax.optimizers import Adam, PolynomialDecay
from w2v2_jax.presets import tiny
from w2v2_jax.tasks import GumbelTemperature, Pretraining


def experiment(data_dir: str = default_data_dir()) -> Experiment:
    """Pretraining on the corpus `espeak_demo` under `data_dir`, whose transcripts are not looked at."""
    clips = {"num_samples": 32_000, "normalise": True, "min_samples": 16_000}
    return Experiment(
        name="demo_pretrain",
        task=Pretraining(
            model=tiny(),
            time_mask=MaskSpans(prob=0.65, length=5, min_spans=2),
            num_distractors=50,
            gumbel_temperature=GumbelTemperature(start=1.0, end=0.5, decay=0.999),
            penalty_weight=0.0,
        ),
        train_data=Clips(Corpus("espeak_demo", "train", data_dir), batch_size=4, **clips),
        valid_data=Clips(Corpus("espeak_demo", "dev", data_dir), batch_size=4, **clips),
        optimizer=Adam(PolynomialDecay(peak=2e-3, warmup_steps=30)),
        num_steps=1_200,
        log_every=20,
        eval_every=300,
        save_every=300,
    )
