"""A tiny Transformer language model of any text: w2v2 train experiments.language.tiny

Data      w2v2 lm prepare tiny_lm --train TEXT --dev TEXT --max-words 2000
          with one sentence a line, in the letters of the transcripts.
Hardware  two CPU cores, some minutes.
"""

from w2v2_jax.data.buckets import PercentileBuckets
from w2v2_jax.data.corpora import default_data_dir
from w2v2_jax.data.language import Lines
from w2v2_jax.experiment import Experiment
from w2v2_jax.language_model import tiny
from w2v2_jax.language_task import LanguageModelling
from w2v2_jax.optimizers import Adam, PolynomialDecay

NUM_WORDS = 2_000
BUCKETS = PercentileBuckets(
    samples_per_batch=2_048, num_buckets=4, batch_multiple=8, round_samples_to=4, round_labels_to=4
)


def experiment(data_dir: str = default_data_dir()) -> Experiment:
    text = {"num_words": NUM_WORDS, "buckets": BUCKETS, "data_dir": data_dir}
    return Experiment(
        name="language_tiny",
        task=LanguageModelling(tiny(NUM_WORDS)),
        train_data=Lines("tiny_lm", "train", **text),
        valid_data=Lines("tiny_lm", "dev", **text),
        optimizer=Adam(PolynomialDecay(peak=3e-3, warmup_steps=100), weight_decay=0.0),
        num_steps=1_000,
        log_every=50,
        eval_every=250,
        save_every=250,
        best_metric="loss",
    )
