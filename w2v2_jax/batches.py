"""The kinds of batch that a data pipeline hands to a task, and the keys of their rows."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, Shaped

from w2v2_jax.frames import valid_mask

Arrays = np.ndarray | jax.Array


class Levels(NamedTuple):
    """What the 16-bit samples of each row stand for: the waveform is `(samples - offset) * scale`."""

    offset: Float[Arrays, " batch"]
    scale: Float[Arrays, " batch"]


class AudioBatch(NamedTuple):
    """Sound alone, zero beyond `num_samples`; a row of 0 samples fills up a batch and counts nowhere.

    `samples` are waveforms, or with `levels` what a recording holds, 16 bits each: half of what has to be moved
    from the processes that read to the device, where they become waveforms.
    """

    samples: Shaped[Arrays, "batch sample"]
    num_samples: Int[Arrays, " batch"]
    levels: Levels | None = None

    @property
    def waveform(self) -> Float[Arrays, "batch sample"]:
        """As the model hears it."""
        return _waveform(self)


class LabeledBatch(NamedTuple):
    """An `AudioBatch` with transcripts as label ids, zero beyond `num_labels`."""

    samples: Shaped[Arrays, "batch sample"]
    num_samples: Int[Arrays, " batch"]
    labels: Int[Arrays, "batch label"]
    num_labels: Int[Arrays, " batch"]
    levels: Levels | None = None

    @property
    def waveform(self) -> Float[Arrays, "batch sample"]:
        """As the model hears it."""
        return _waveform(self)


class TokenBatch(NamedTuple):
    """Texts as token ids, zero beyond `num_tokens`; a row of 0 tokens fills up a batch and counts nowhere."""

    tokens: Int[Arrays, "batch token"]
    num_tokens: Int[Arrays, " batch"]


Batch = AudioBatch | LabeledBatch | TokenBatch


def _waveform(batch: AudioBatch | LabeledBatch) -> Float[Arrays, "batch sample"]:
    if batch.levels is None:
        return batch.samples
    offset, scale = (values[:, None] for values in batch.levels)
    is_sound = valid_mask(jnp.asarray(batch.num_samples), batch.samples.shape[1])
    return jnp.where(is_sound, (batch.samples - offset) * scale, 0)


def example_keys(key: Key[Array, ""], num_examples: int) -> Key[Array, " batch"]:
    """One key for each row of the global batch."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(num_examples))
