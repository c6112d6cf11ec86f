"""What both sides of train_step.py work on: networks, tasks and batches."""

from typing import Any, NamedTuple

import jax
import numpy as np

from w2v2_jax import presets
from w2v2_jax.convert.card import NO_MASK, Card
from w2v2_jax.convert.huggingface_config import config_of
from w2v2_jax.data.audio import SAMPLE_RATE
from w2v2_jax.data.text import LETTERS
from w2v2_jax.masking import TIME_MASK
from w2v2_jax.model import CTCModel, PretrainingModel
from w2v2_jax.overrides import override
from w2v2_jax.tasks import CHANNEL_MASK, CTCFinetuning, Pretraining

LABELS_PER_SECOND = 14
"""As in LibriSpeech."""
FIRST_LABEL = 5
"""Those before are no letters."""


class Case(NamedTuple):
    """`clips` of `samples` samples for a `preset`, in "pretraining" or "ctc", computed in `dtype`."""

    preset: str
    task: str
    clips: int
    samples: int
    dtype: str

    @property
    def hours(self) -> float:
        """Audio in a batch."""
        return self.clips * self.samples / SAMPLE_RATE / 3600


def task_of(case: Case) -> Pretraining | CTCFinetuning:
    """What we learn, with dropout as published. No layer is left out: every step is to be the same work."""
    model = getattr(presets, case.preset)()
    settings = {"layer_drop": 0.0, "unroll": model.encoder.context_network.num_layers}
    if jax.default_backend() != "tpu":
        # As transformers does; on a TPU it is slower than to compute some of it again.
        settings["remat_policy"] = jax.checkpoint_policies.everything_saveable
    settings = {f"encoder.context_network.{name}": value for name, value in settings.items()}
    model = override(model, settings | {"encoder.dtype": case.dtype})
    if case.task == "pretraining":
        return Pretraining(model)
    encoder = override(model.encoder, {"feature_gradient_scale": 0.0})
    return CTCFinetuning(CTCModel(encoder, len(LETTERS)), LETTERS)


def config_for_transformers(case: Case) -> dict[str, Any]:
    """The same network and masks in transformers' words."""
    task = task_of(case)
    if isinstance(task.model, PretrainingModel):
        config = config_of(Card(task.model, normalise=True, time_mask=TIME_MASK, channel_mask=NO_MASK))
        return config | {"num_negatives": task.num_distractors}
    card = Card(task.model, normalise=True, vocabulary=LETTERS, time_mask=TIME_MASK, channel_mask=CHANNEL_MASK)
    return config_of(card) | {"ctc_loss_reduction": "sum", "ctc_zero_infinity": True, "apply_spec_augment": True}


def clips_of(case: Case) -> np.ndarray:
    """White noise: what it sounds like makes no difference to the time."""
    return np.random.default_rng(0).standard_normal((case.clips, case.samples), np.float32)


def num_labels(case: Case) -> int:
    """Labels of each clip."""
    return LABELS_PER_SECOND * case.samples // SAMPLE_RATE


def labels_of(case: Case) -> np.ndarray:
    """Letters at random."""
    shape = (case.clips, num_labels(case))
    return np.random.default_rng(1).integers(FIRST_LABEL, len(LETTERS), shape).astype(np.int32)
