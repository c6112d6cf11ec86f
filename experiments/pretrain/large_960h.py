"""LARGE on the 960 hours of LibriSpeech: w2v2 train experiments.pretrain.large_960h

Paper     section 4.2; fairseq has no configuration of it. 128 GPUs in the paper, 250k steps, LayerDrop 0.2.
Batch     384 crops of 20 s = 2.13 h of audio a step, in sub-batches of 3.
Data      as base_960h. Not run by us.

Temperatures end at 0.1 in place of 0.5. The paper warms up for the first 8 % of the steps, which is done here.
"""

from experiments.pretrain import base_960h
from w2v2_jax.experiment import Experiment
from w2v2_jax.overrides import override
from w2v2_jax.presets import large


def experiment() -> Experiment:
    crops = {f"{data}.{key}": value for data in ("train_data", "valid_data") for key, value in CROPS.items()}
    return override(
        base_960h.experiment(),
        {
            "name": "large_960h",
            "task.model": override(large(), {"encoder.dtype": "bfloat16"}),
            "task.gumbel_temperature.end": 0.1,
            "task.sub_batch_size": 3,
            "optimizer.schedule.peak": 3e-4,
            "optimizer.schedule.warmup_steps": 20_000,
            "num_steps": 250_000,
            **crops,
        },
    )


CROPS = {"batch_size": 384, "num_samples": 320_000}
