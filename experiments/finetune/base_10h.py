"""BASE fine-tuned on 10 hours: w2v2 train experiments.finetune.base_10h

Expect 10.9/17.4 % (table 9). See `librispeech` for what the recipes share. Not run by us.
"""

from experiments.finetune.librispeech import Numbers, recipe
from w2v2_jax.data.records import Corpus
from w2v2_jax.experiment import Experiment
from w2v2_jax.presets import base

NUMBERS = Numbers(num_steps=20_000, peak=5e-05, mask_prob=0.65, channel_prob=0.5, frozen_steps=10_000, layer_drop=0.05)


def experiment() -> Experiment:
    return recipe("base_10h", base().encoder, "runs/base_960h", Corpus("librilight", "train_10h"), False, NUMBERS)
