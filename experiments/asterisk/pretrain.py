"""A small model pretrained on 1.7 hours of real prompts in five languages: w2v2 train experiments.asterisk.pretrain

Hardware  two CPU cores, about 40 minutes.
Data      the corpus `asterisk`, split `train`: English, Spanish, French, Italian and Russian, without the sentences
          of `dev` and `test`.
Expect    contrastive accuracy 0.35 on `dev` after 5,000 steps (chance 0.02), code perplexity 51 of 80.
"""

from experiments.demo import pretrain
from w2v2_jax.data.corpora import default_data_dir
from w2v2_jax.data.records import Corpus
from w2v2_jax.experiment import Experiment
from w2v2_jax.overrides import override
from w2v2_jax.presets import small


def experiment(data_dir: str = default_data_dir()) -> Experiment:
    """The demo's recipe, for longer, on the corpus `asterisk` under `data_dir`."""
    return override(
        pretrain.experiment(data_dir),
        {
            "name": "asterisk_pretrain",
            "task.model": small(),
            "train_data.source": Corpus("asterisk", "train", data_dir),
            "valid_data.source": Corpus("asterisk", "dev", data_dir),
            "optimizer.schedule.peak": 2e-3,
            "optimizer.schedule.warmup_steps": 100,
            "train_data.min_samples": 8_000,
            "valid_data.min_samples": 8_000,
            "train_data.batch_size": 8,
            "num_steps": 5_000,
            "log_every": 100,
            "eval_every": 1_000,
            "save_every": 1_000,
        },
    )
