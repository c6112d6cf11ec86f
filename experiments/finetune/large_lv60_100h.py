"""LARGE LV-60k fine-tuned on 100 hours: w2v2 train experiments.finetune.large_lv60_100h

Expect 3.3/6.5 % (table 9). See `librispeech` for what the recipes share. Not run by us.
"""

from experiments.finetune.librispeech import Numbers, recipe
from w2v2_jax.data.records import Corpus
from w2v2_jax.experiment import Experiment
from w2v2_jax.presets import large_lv60

NUMBERS = Numbers(num_steps=80_000, peak=3e-05, mask_prob=0.5, channel_prob=0.5, frozen_steps=10_000)


def experiment() -> Experiment:
    return recipe(
        "large_lv60_100h",
        large_lv60().encoder,
        "runs/large_lv60",
        Corpus("librispeech", "train_clean100"),
        True,
        NUMBERS,
    )
