"""BASE on 960 hours, for a slice of 8 chips: w2v2 train experiments.pretrain.base_960h_8_chips

As base_960h in every number: 320 crops, 1.39 h of audio a step, sub-batches of 5. They go through the network in four
parts of 80, so that a chip holds 10 crops at a time. Not run by us.
"""

from experiments.pretrain import base_960h
from w2v2_jax.experiment import Experiment
from w2v2_jax.overrides import override


def experiment() -> Experiment:
    return override(base_960h.experiment(), {"name": "base_960h_8_chips", "accumulation_steps": 4})
