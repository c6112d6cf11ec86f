"""Checkpoints of experiments that were never trained."""

from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import micro
import numpy as np

from w2v2_jax.checkpoints import Checkpoints
from w2v2_jax.description import describe
from w2v2_jax.model import CTCModel
from w2v2_jax.overrides import override
from w2v2_jax.tasks import CTCFinetuning


class State(NamedTuple):
    params: Any


def coarse_task() -> CTCFinetuning:
    """With about the frames of the paper, 320 samples apart, so that seconds of audio are quickly done."""
    layers = ((8, 10, 5), (8, 8, 8), (8, 8, 8))
    encoder = override(micro.encoder(), {"feature_encoder.layers": layers, "context_network.num_layers": 1})
    return CTCFinetuning(CTCModel(encoder, len(micro.VOCABULARY)), micro.VOCABULARY, micro.NO_MASK, micro.NO_MASK)


def params_of(task, seed=0):
    """Parameters of any values: nothing is compiled for them."""
    rng = np.random.default_rng(seed)
    shapes = nn.unbox(jax.eval_shape(task.init, jax.random.key(0)))
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(scale=0.3, size=x.shape), x.dtype), shapes)


def save(folder: Path, experiment, step=1, seed=0) -> Path:
    checkpoints = Checkpoints(folder, describe(experiment))
    checkpoints.save(step, State(params_of(experiment.task, seed)), {})
    checkpoints.close()
    return folder
