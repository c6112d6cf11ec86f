"""LARGE fine-tuned on the phones of TIMIT: w2v2 train experiments.finetune.timit

Data      `w2v2 prepare timit FOLDER`: 3,696 sentences, transcripts folded to 39 phones, one of them silence.
Expect    phone error rates of 7.4/8.3 % on dev/test without a language model (table 3), by
          `w2v2 evaluate runs/timit timit/test --phones`. Not run by us.
Masks     the paper's (table 6): p = 0.065 a frame in spans of 10, 0.012 a channel in spans of 64.

All else as `large_lv60_10h` has it, as the paper fine-tunes here as on ten hours, from LARGE on LibriSpeech. See
`librispeech` for what the recipes share.
"""

from experiments.finetune.librispeech import Numbers, recipe
from w2v2_jax.data.phone_sets import phone_vocabulary
from w2v2_jax.data.records import Corpus
from w2v2_jax.experiment import Experiment
from w2v2_jax.overrides import override
from w2v2_jax.presets import large

PHONES = phone_vocabulary(39)
NUMBERS = Numbers(num_steps=40_000, peak=1e-4, mask_prob=0.65, channel_prob=0.768, frozen_steps=10_000)


def experiment() -> Experiment:
    return override(
        recipe("timit", large().encoder, "runs/large_960h", Corpus("timit", "train"), False, NUMBERS),
        {
            "task.vocabulary": PHONES,
            "task.model.num_labels": len(PHONES),
            "train_data.vocabulary": PHONES,
            "valid_data.vocabulary": PHONES,
            "valid_data.source": Corpus("timit", "dev"),
            "best_metric": "label_error_rate",
        },
    )
