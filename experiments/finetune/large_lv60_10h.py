"""LARGE LV-60k fine-tuned on 10 hours: w2v2 train experiments.finetune.large_lv60_10h

Expect 6.3/9.8 % (table 9). See `librispeech` for what the recipes share. Not run by us.
"""

from experiments.finetune.librispeech import Numbers, recipe
from w2v2_jax.data.records import Corpus
from w2v2_jax.experiment import Experiment
from w2v2_jax.presets import large_lv60

NUMBERS = Numbers(num_steps=20_000, peak=0.0001, mask_prob=0.75, channel_prob=0.25, frozen_steps=10_000)


def experiment() -> Experiment:
    return recipe(
        "large_lv60_10h", large_lv60().encoder, "runs/large_lv60", Corpus("librilight", "train_10h"), True, NUMBERS
    )
