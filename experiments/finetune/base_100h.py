"""BASE fine-tuned on 100 hours: w2v2 train experiments.finetune.base_100h

Expect 6.1/13.5 % (table 9). See `librispeech` for what the recipes share. Not run by us.

fairseq's learning rate; the paper chose 2e-5 or 3e-5 by seed. Nothing is frozen, where the paper freezes.
"""

from experiments.finetune.librispeech import Numbers, recipe
from w2v2_jax.data.records import Corpus
from w2v2_jax.experiment import Experiment
from w2v2_jax.presets import base

NUMBERS = Numbers(num_steps=80_000, peak=3e-05, mask_prob=0.65, channel_prob=0.5, frozen_steps=0)


def experiment() -> Experiment:
    return recipe(
        "base_100h", base().encoder, "runs/base_960h", Corpus("librispeech", "train_clean100"), False, NUMBERS
    )
