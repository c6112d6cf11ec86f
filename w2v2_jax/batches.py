"""The kinds of batch that a data pipeline hands to a task, and the keys of their rows."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

Arrays = np.ndarray | jax.Array


class AudioBatch(NamedTuple):
    """Waveforms alone, zero beyond `num_samples`; a row of 0 samples fills up a batch and counts nowhere."""

    waveform: Float[Arrays, "batch sample"]
    num_samples: Int[Arrays, " batch"]


class LabeledBatch(NamedTuple):
    """Waveforms with their transcripts as label ids, zero beyond `num_labels`."""

    waveform: Float[Arrays, "batch sample"]
    num_samples: Int[Arrays, " batch"]
    labels: Int[Arrays, "batch label"]
    num_labels: Int[Arrays, " batch"]


class TokenBatch(NamedTuple):
    """Texts as token ids, zero beyond `num_tokens`; a row of 0 tokens fills up a batch and counts nowhere."""

    tokens: Int[Arrays, "batch token"]
    num_tokens: Int[Arrays, " batch"]


Batch = AudioBatch | LabeledBatch | TokenBatch


def example_keys(key: Key[Array, ""], num_examples: int) -> Key[Array, " batch"]:
    """One key for each row of the global batch."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(num_examples))
