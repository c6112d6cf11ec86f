"""LARGE LV-60k fine-tuned on 1 hour: w2v2 train experiments.finetune.large_lv60_1h

Expect 17.3/20.6 % (table 9). See `librispeech` for what the recipes share. Not run by us.
"""

from experiments.finetune.librispeech import Numbers, recipe
from w2v2_jax.data.records import Corpus
from w2v2_jax.experiment import Experiment
from w2v2_jax.presets import large_lv60

NUMBERS = Numbers(num_steps=13_000, peak=0.0003, mask_prob=0.75, channel_prob=0.25, frozen_steps=10_000)


def experiment() -> Experiment:
    return recipe(
        "large_lv60_1h", large_lv60().encoder, "runs/large_lv60", Corpus("librilight", "train_1h"), True, NUMBERS
    )
