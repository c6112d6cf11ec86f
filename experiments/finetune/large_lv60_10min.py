"""LARGE LV-60k fine-tuned on 10 minutes: w2v2 train experiments.finetune.large_lv60_10min

Expect 38.3/41.0 % (table 9). See `librispeech` for what the recipes share. Not run by us.

The paper's masks for 10 minutes are 0.75 and 0.512 in these units; fairseq's are taken.
"""

from experiments.finetune.librispeech import Numbers, recipe
from w2v2_jax.data.records import Corpus
from w2v2_jax.experiment import Experiment
from w2v2_jax.presets import large_lv60

NUMBERS = Numbers(num_steps=13_000, peak=0.0001, mask_prob=0.65, channel_prob=0.25, frozen_steps=10_000)


def experiment() -> Experiment:
    return recipe(
        "large_lv60_10min", large_lv60().encoder, "runs/large_lv60", Corpus("librilight", "train_10min"), True, NUMBERS
    )
