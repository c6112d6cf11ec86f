"""LARGE on 960 hours, for a slice of 8 chips: w2v2 train experiments.pretrain.large_960h_8_chips

As large_960h in every number: 384 crops, 2.13 h of audio a step, sub-batches of 3. They go through the network in
eight parts of 48, so that a chip holds 6 crops at a time, and the chips share parameters, gradients and moments. Not
run by us.
"""

from experiments.pretrain import large_960h
from w2v2_jax.experiment import Experiment
from w2v2_jax.overrides import override


def experiment() -> Experiment:
    sizes = {"accumulation_steps": 8, "mesh.fsdp": 8}
    return override(large_960h.experiment(), {"name": "large_960h_8_chips", **sizes})
