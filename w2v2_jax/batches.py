"""The two kinds of batch that a data pipeline hands to a task."""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

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
