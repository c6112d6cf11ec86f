"""The connectionist temporal classification loss of fine-tuning."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

BLANK = 0
"""The id of the blank where nothing else is said, as in fairseq; published checkpoints have it at other places too."""


class CTCLoss(NamedTuple):
    """Losses in nats, one a clip; a clip that no path can spell has loss 0, gradient 0 and `feasible` False."""

    losses: Float[Array, " batch"]
    feasible: Bool[Array, " batch"]


def ctc_loss(
    logits: Float[Array, "batch frame label"],
    num_frames: Int[Array, " batch"],
    labels: Int[Array, "batch label_pos"],
    num_labels: Int[Array, " batch"],
    blank: int = BLANK,
) -> CTCLoss:
    """Negative log probability that the frames spell the labels, summed over all alignments (Graves et al. 2006).

    Each loss is in nats and at least 0; it is a sum over frames, not a mean, and is computed in float32 whatever the
    dtype of `logits`, which must be finite in valid frames. Frames beyond `num_frames` and labels beyond `num_labels`
    count nowhere, even if they are NaN. A row is infeasible if it has no frame or fewer frames than labels plus
    adjacent repeats, each of which needs a blank in between; this holds for the filler rows of a batch as well.
    """
    label_valid = jnp.arange(labels.shape[1])[None] < num_labels[:, None]
    labels = jnp.where(label_valid, labels, blank)
    repeats = jnp.sum((labels[:, 1:] == labels[:, :-1]) & label_valid[:, 1:], axis=1)
    feasible = (num_frames > 0) & (num_frames >= num_labels + repeats)

    frame_valid = jnp.arange(logits.shape[1])[None] < num_frames[:, None]
    # Infeasible rows are blotted out before the loss too: behind a single `where` their NaNs would reach the gradient.
    logits = jnp.where((frame_valid & feasible[:, None])[..., None], logits.astype(jnp.float32), 0)
    # At a TPU's default precision optax's one-hot product would round the emissions to bfloat16.
    with jax.default_matmul_precision("highest"):
        losses = optax.ctc_loss(logits, 1.0 - frame_valid, labels, 1.0 - label_valid, blank_id=blank)
    return CTCLoss(jnp.where(feasible, jnp.maximum(losses, 0), 0), feasible)
