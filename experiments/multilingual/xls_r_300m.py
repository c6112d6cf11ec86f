"""XLS-R with 300M parameters on 436,000 hours in 128 languages: w2v2 train experiments.multilingual.xls_r_300m

Paper     Babu et al. 2021, "XLS-R: Self-supervised Cross-lingual Speech Representation Learning at Scale".
Sampling  in two steps: corpora by (hours / hours of all) ** 0.5, then languages within each corpus likewise.
Batch     384 crops of 20 s = 2.13 h of audio a step, in sub-batches of 3.
Data      corpora `voxpopuli` (372,000 h, split `unlabelled`), `mls` (50,000 h), `common_voice` (7,000 h),
          `voxlingua107` (6,600 h) and `babel` (1,000 h), split `train`. Validated on five hours of each of xlsr_53's
          corpora, by themselves and together. Not run by us.

fairseq has no file of it either: but for data and sampling this is as xlsr_53, which need not be the paper's rate and
batch.
"""

from experiments.multilingual import xlsr_53
from w2v2_jax.data.mixtures import AlphaShares, ByLanguage, Mixture
from w2v2_jax.data.records import Corpus
from w2v2_jax.experiment import Experiment
from w2v2_jax.overrides import override
from w2v2_jax.presets import xls_r_300m

CORPORA = (
    Corpus("voxpopuli", "unlabelled"),
    *(Corpus(name, "train") for name in ("mls", "common_voice", "voxlingua107", "babel")),
)


def experiment() -> Experiment:
    by_language = tuple(ByLanguage(corpus, AlphaShares(0.5)) for corpus in CORPORA)
    return override(
        xlsr_53.experiment(),
        {
            "name": "xls_r_300m",
            "task.model": override(xls_r_300m(), {"encoder.dtype": "bfloat16"}),
            "train_data.source": Mixture(by_language, AlphaShares(0.5)),
        },
    )
