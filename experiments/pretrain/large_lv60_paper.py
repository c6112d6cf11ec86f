"""LARGE on 60,000 hours, the run of the paper: w2v2 train experiments.pretrain.large_lv60_paper

Paper     section 4.2, in the numbers of the command that fairseq published with it (August 2020): post-norm layers,
          3e-4, 600k steps, waveforms as they are, no LayerDrop. The published weights are of a later run: large_lv60.
Batch     384 crops of 20 s = 2.13 h of audio a step, in sub-batches of 3 (128 GPUs in the paper).
Data      as large_lv60. Not run by us.

Where paper and command disagree, this follows the command: warm-up over 32k steps (paper: 8 %, 48k), dropout in the
layers for attention alone (paper: all), gradients of the feature encoder times 0.03 and its penalty, both of which the
paper has for LibriSpeech only.
"""

from experiments.pretrain import large_960h, large_lv60
from w2v2_jax.experiment import Experiment
from w2v2_jax.overrides import override


def experiment() -> Experiment:
    return override(
        large_960h.experiment(),
        {
            "name": "large_lv60_paper",
            "task.model.encoder.context_network.layer.dropout": 0.0,
            "task.model.encoder.context_network.dropout": 0.0,
            "task.model.encoder.context_network.layer_drop": 0.0,
            "task.model.encoder.feature_gradient_scale": 0.03,
            "train_data.source": large_lv60.UNLAB_60K,
            "optimizer.schedule.warmup_steps": 32_000,
            "num_steps": 600_000,
        },
    )
