"""LARGE LV-60k fine-tuned on 960 hours: w2v2 train experiments.finetune.large_lv60_960h

Expect 2.1/4.5 % (table 9). See `librispeech` for what the recipes share. Not run by us.
"""

from experiments.finetune.librispeech import Numbers, recipe
from experiments.pretrain.base_960h import TRAIN_960H
from w2v2_jax.experiment import Experiment
from w2v2_jax.presets import large_lv60

NUMBERS = Numbers(
    num_steps=320_000, peak=3e-05, mask_prob=0.5, channel_prob=0.25, frozen_steps=10_000, samples_per_batch=30_720_000
)


def experiment() -> Experiment:
    return recipe("large_lv60_960h", large_lv60().encoder, "runs/large_lv60", TRAIN_960H, True, NUMBERS)
