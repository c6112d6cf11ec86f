"""LARGE on the 60,000 hours of Libri-Light as published: w2v2 train experiments.pretrain.large_lv60

Paper     section 4.2 for data and batch; fairseq's large_librivox.yaml for the rest.
Batch     384 crops of 20 s = 2.13 h of audio a step, in sub-batches of 3 (128 GPUs in the paper).
Data      the three parts of unlab-60k, by `w2v2 prepare librilight-unlab FOLDER`. Not run by us.

The paper describes another run (large_lv60_paper): fairseq's file, which this follows, and the published weights are
of a later one: 5e-3, 1M steps with a warm-up of 3.2 %, layer norms throughout with normalised waveforms, no dropout, no
feature penalty.
"""

from experiments.pretrain import large_960h
from w2v2_jax.data.records import Corpus, Mix
from w2v2_jax.experiment import Experiment
from w2v2_jax.overrides import override
from w2v2_jax.presets import large_lv60

UNLAB_60K = Mix(tuple(Corpus("librilight_unlab", part) for part in ("small", "medium", "large")))


def experiment() -> Experiment:
    return override(
        large_960h.experiment(),
        {
            "name": "large_lv60",
            "task.model": override(large_lv60(), {"encoder.dtype": "bfloat16"}),
            "task.penalty_weight": 0.0,
            "train_data.source": UNLAB_60K,
            "train_data.normalise": True,
            "valid_data.normalise": True,
            "optimizer.schedule.peak": 5e-3,
            "optimizer.schedule.warmup_steps": 32_000,
            "num_steps": 1_000_000,
        },
    )
