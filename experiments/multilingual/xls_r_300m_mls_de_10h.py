"""XLS-R 300M fine-tuned on 10 hours of German: w2v2 train experiments.multilingual.xls_r_300m_mls_de_10h

Paper     Babu et al. 2021; fairseq's xlsr/config/finetune.yaml and the steps that go with it, 20,000 for ten hours.
          The peak rate was chosen for each language from 2e-5 to 3e-4 by the word error rate on dev; here 3e-4.
Batch     1600 s of audio a step, padding included. All else as `experiments.finetune.librispeech` says.
Data      a corpus `mls` with German among its languages: the ten hours are `train_9h` and `train_1h`.
Start     runs/xls_r_300m, or the published weights: --set init_from.path=wav2vec2-xls-r-300m. Not run by us.

For another language change code and letters; a text with another letter is an error that names it.
"""

from experiments.finetune.librispeech import Numbers, recipe
from w2v2_jax.data.records import Corpus, InLanguage, Mix
from w2v2_jax.data.text import SPECIALS, WORD_END, Vocabulary
from w2v2_jax.experiment import Experiment
from w2v2_jax.overrides import override
from w2v2_jax.presets import xls_r_300m

TEN_HOURS = Mix((Corpus("mls", "train_9h"), Corpus("mls", "train_1h")))
LETTERS = Vocabulary((*SPECIALS, WORD_END, *"enirstahdulcgmobwfkzvüpäßöjyqx", *"'-éèêëàâáíîïóôúçñ"))
NUMBERS = Numbers(num_steps=20_000, peak=3e-4, mask_prob=0.75, channel_prob=0.25, frozen_steps=10_000)


def experiment() -> Experiment:
    german = InLanguage(TEN_HOURS, "de")
    return override(
        recipe("xls_r_300m_mls_de_10h", xls_r_300m().encoder, "runs/xls_r_300m", german, True, NUMBERS),
        {
            "task.vocabulary": LETTERS,
            "task.model.num_labels": len(LETTERS),
            "train_data.vocabulary": LETTERS,
            "valid_data.vocabulary": LETTERS,
            "valid_data.source": InLanguage(Corpus("mls", "dev"), "de"),
        },
    )
