"""The paper's Transformer language model: w2v2 train experiments.language.librispeech

Paper     section 4.4: 20 layers of 1,280 dimensions, 6,144 in the feed-forward layers, 16 heads, from Synnaeve et al.
          2020, whose bands of the softmax and dropout it has; 562,265,600 parameters. They trained it with Nesterov's
          method on 128 GPUs and report perplexities per word of 48.2 (dev-clean) and 50.2 (dev-other).
Batch     262,144 words and ends (their 128 GPUs: 2,048 each).
Hardware  8 chips of a TPU v5e share the state and take the batch in 4 parts: 7.8 GiB a chip by the compiler, not run.
          For another number of chips set mesh.fsdp and accumulation_steps.
Optimizer Adam in place of Nesterov's method.
Expect    not run by us.
Data      the 803 million words of openslr.org/11 in capitals, as they come, and the transcripts of dev-other:
              w2v2 lm prepare librispeech_lm --train librispeech-lm-norm.txt.gz --dev dev-other.txt \
                  --max-words 220000 --min-count 10
"""

from w2v2_jax.data.buckets import PercentileBuckets
from w2v2_jax.data.corpora import default_data_dir
from w2v2_jax.data.language import Lines
from w2v2_jax.experiment import Experiment
from w2v2_jax.language_model import librispeech
from w2v2_jax.language_task import LanguageModelling
from w2v2_jax.optimizers import Adam, PolynomialDecay
from w2v2_jax.sharding import MeshShape

NUM_WORDS = 220_000
BUCKETS = PercentileBuckets(
    samples_per_batch=262_144, num_buckets=8, batch_multiple=128, round_samples_to=8, round_labels_to=8
)


def experiment(data_dir: str = default_data_dir()) -> Experiment:
    text = {"num_words": NUM_WORDS, "buckets": BUCKETS, "data_dir": data_dir}
    return Experiment(
        name="language_librispeech",
        task=LanguageModelling(librispeech(NUM_WORDS)),
        train_data=Lines("librispeech_lm", "train", **text),
        valid_data=Lines("librispeech_lm", "dev", **text),
        optimizer=Adam(PolynomialDecay(peak=5e-4, warmup_steps=16_000), weight_decay=0.0),
        num_steps=150_000,
        best_metric="loss",
        eval_every=5_000,
        save_every=5_000,
        accumulation_steps=4,
        mesh=MeshShape(fsdp=8),
    )
