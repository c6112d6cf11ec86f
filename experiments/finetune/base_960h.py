"""BASE fine-tuned on 960 hours: w2v2 train experiments.finetune.base_960h

Expect 3.2/8.9 % (table 9). See `librispeech` for what the recipes share. Not run by us.
"""

from experiments.finetune.librispeech import Numbers, recipe
from experiments.pretrain.base_960h import TRAIN_960H
from w2v2_jax.experiment import Experiment
from w2v2_jax.presets import base

NUMBERS = Numbers(num_steps=320_000, peak=0.0001, mask_prob=0.5, channel_prob=0.1, frozen_steps=0)


def experiment() -> Experiment:
    return recipe("base_960h", base().encoder, "runs/base_960h", TRAIN_960H, False, NUMBERS)
