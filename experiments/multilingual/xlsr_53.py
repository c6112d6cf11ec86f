"""XLSR-53, LARGE on 56,000 hours in 53 languages: w2v2 train experiments.multilingual.xlsr_53

Paper     Conneau et al. 2020, "Unsupervised Cross-lingual Representation Learning for Speech Recognition". fairseq has
          no file of it: all is as in large_lv60 but for the lower rate (fairseq#2997), 1e-3 (fairseq#3526).
Sampling  languages by (hours / hours of all) ** 0.5, over all corpora together: one with a quarter of another's hours
          is drawn half as often. The exponent is that of later models; fairseq's issue says "just like in XLM".
Batch     384 crops of 20 s = 2.13 h of audio a step, in sub-batches of 3.
Data      corpora `mls` (8 languages, 50,700 h), `common_voice` (36, 3,600 h) and `babel` (17, 1,700 h; from the LDC,
          prepared by a manifest), splits `train` and `dev`. A language that several have must have one code in all.
          Validated on five hours of each, by themselves and together. Not run by us.
"""

from experiments.pretrain import large_lv60
from w2v2_jax.data.mixtures import AlphaShares, ByLanguage
from w2v2_jax.data.records import Corpus, Mix, Subset
from w2v2_jax.experiment import DevSet, DevSets, Experiment
from w2v2_jax.overrides import override
from w2v2_jax.presets import xlsr_53

CORPORA = ("mls", "common_voice", "babel")


def experiment() -> Experiment:
    lv60 = large_lv60.experiment()
    return override(
        lv60,
        {
            "name": "xlsr_53",
            "task.model": override(xlsr_53(), {"encoder.dtype": "bfloat16"}),
            "train_data.source": ByLanguage(Mix(tuple(Corpus(name, "train") for name in CORPORA)), AlphaShares(0.5)),
            "valid_data": DevSets(
                tuple(
                    DevSet(name, override(lv60.valid_data, {"source": Subset(Corpus(name, "dev"), minutes=300)}))
                    for name in CORPORA
                )
            ),
            "optimizer.schedule.peak": 1e-3,
        },
    )
