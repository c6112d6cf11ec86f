"""What every format says of a network, each in its own words: the middle between reading one and writing another."""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple, Protocol, runtime_checkable

import flax.linen as nn
import numpy as np

from w2v2_jax.data.text import Vocabulary
from w2v2_jax.masking import MaskSpans

NO_MASK = MaskSpans(prob=0.0, length=10, min_spans=0)
NO_VOCABULARY = Vocabulary(("<s>",))
"""Of networks that write no text."""


@dataclasses.dataclass(frozen=True)
class Card:
    """A network and what must be known to use it.

    `normalise` says whether it expects waveforms of mean 0 and variance 1. `vocabulary` is of a CTC head, `classes`
    are the names of a classifier's outputs, `language` is that of attention adapters, "" where there are none. The
    masks are those of its training; without either of them a network has no use for its mask embedding.
    """

    model: nn.Module
    normalise: bool
    vocabulary: Vocabulary = NO_VOCABULARY
    classes: tuple[str, ...] = ()
    time_mask: MaskSpans = NO_MASK
    channel_mask: MaskSpans = NO_MASK
    language: str = ""


@runtime_checkable
class StoredTensor(Protocol):
    """A tensor that is read, from a file or from a parameter, when it is wanted."""

    shape: tuple[int, ...]
    dtype: np.dtype

    def read(self) -> np.ndarray:
        """The whole of it."""


class Published(NamedTuple):
    """What a format holds: the card, and each tensor by the name that the format gives it."""

    card: Card
    tensors: Mapping[str, StoredTensor]


class FormatError(ValueError):
    """A file or folder that is not what it should be; the message says what it is and what would be accepted."""
