"""BASE on the 960 hours of LibriSpeech: w2v2 train experiments.pretrain.base_960h

Paper     section 4.2, table 1 and 2; fairseq's base_librispeech.yaml.
Batch     320 crops of 15.6 s = 1.39 h of audio a step (paper: 1.6 h), in sub-batches of 5 (its 64 GPUs).
Expect    contrastive accuracy about .49 at 50k, .54 at 100k, .58 at 200k, .63 at 400k steps (NVIDIA's eight bf16
          runs of this recipe). Not run by us.
Data      a corpus `librispeech` prepared under the data directory, splits as in TFDS.

Where paper and code disagree, this follows the code: 12 heads (paper: 8), diversity by perplexity (paper: by
entropy). bfloat16 in place of float16. fairseq crops a batch to its shortest clip; here a
shorter clip is padded, and padding is never looked at.
"""

from w2v2_jax.data.pipeline import Clips
from w2v2_jax.data.records import Corpus, Mix
from w2v2_jax.experiment import Experiment
from w2v2_jax.optimizers import Adam, PolynomialDecay
from w2v2_jax.overrides import override
from w2v2_jax.presets import base
from w2v2_jax.tasks import Pretraining

TRAIN_960H = Mix(tuple(Corpus("librispeech", s) for s in ("train_clean100", "train_clean360", "train_other500")))
DEV_OTHER = Corpus("librispeech", "dev_other")


def experiment() -> Experiment:
    return Experiment(
        name="base_960h",
        task=Pretraining(model=override(base(), {"encoder.dtype": "bfloat16"}), sub_batch_size=5),
        train_data=Clips(TRAIN_960H, batch_size=320, num_samples=250_000, normalise=False),
        valid_data=Clips(DEV_OTHER, batch_size=320, num_samples=250_000, normalise=False),
        optimizer=Adam(PolynomialDecay(peak=5e-4, warmup_steps=32_000)),
        num_steps=400_000,
        best_metric="contrastive_loss",
        eval_every=5_000,
        save_every=5_000,
    )
