"""What ten minutes of English give without pretraining, all else equal: w2v2 train experiments.asterisk.scratch"""

from experiments.asterisk import finetune
from w2v2_jax.data.corpora import default_data_dir
from w2v2_jax.experiment import Experiment, from_scratch
from w2v2_jax.overrides import override


def experiment(data_dir: str = default_data_dir()) -> Experiment:
    """`experiments.asterisk.finetune` from random parameters."""
    return override(finetune.experiment(data_dir), {"name": "asterisk_scratch", "init_from": from_scratch})
