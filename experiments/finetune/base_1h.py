"""BASE fine-tuned on 1 hour: w2v2 train experiments.finetune.base_1h

Expect 24.1/29.6 % (table 9). See `librispeech` for what the recipes share. Not run by us.
"""

from experiments.finetune.librispeech import Numbers, recipe
from w2v2_jax.data.records import Corpus
from w2v2_jax.experiment import Experiment
from w2v2_jax.presets import base

NUMBERS = Numbers(num_steps=13_000, peak=5e-05, mask_prob=0.65, channel_prob=0.25, frozen_steps=10_000)


def experiment() -> Experiment:
    return recipe("base_1h", base().encoder, "runs/base_960h", Corpus("librilight", "train_1h"), False, NUMBERS)
