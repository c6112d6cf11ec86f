"""Ten minutes of English prompts, after pretraining on five languages: w2v2 train experiments.asterisk.finetune

Hardware  two CPU cores, about twenty minutes. Run experiments.asterisk.pretrain first.
Expect    word error rate 88 % and character error rate 48 % on `test`, against 99 % and 57 % of
          experiments.asterisk.scratch.
Data      the corpus `asterisk`, split `labelled`; no sentence of it is in `dev` or `test`.
"""

from experiments.demo import finetune
from w2v2_jax.data.buckets import Bucket, FixedBuckets
from w2v2_jax.data.corpora import default_data_dir
from w2v2_jax.data.records import Corpus
from w2v2_jax.experiment import Experiment
from w2v2_jax.overrides import override
from w2v2_jax.presets import small

BUCKETS = FixedBuckets((Bucket(48_000, 10, 80), Bucket(128_000, 4, 176), Bucket(416_000, 1, 512)))
"""Most prompts are a few words, some are half a minute long; for one device."""


def experiment(data_dir: str = default_data_dir(), pretrained: str = "runs/asterisk_pretrain") -> Experiment:
    """The demo's recipe, for longer, on the corpus `asterisk` under `data_dir`."""
    return override(
        finetune.experiment(data_dir, pretrained),
        {
            "name": "asterisk_finetune",
            "task.model.encoder": small().encoder,
            "train_data.buckets": BUCKETS,
            "valid_data.buckets": BUCKETS,
            "train_data.source": Corpus("asterisk", "labelled", data_dir),
            "valid_data.source": Corpus("asterisk", "dev", data_dir),
            "optimizer.schedule.peak": 1e-3,
            "num_steps": 4_000,
            "log_every": 25,
            "eval_every": 250,
            "save_every": 250,
        },
    )
