"""The arithmetic of strided convolutions without padding: how many frames come out of how many samples."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

ConvLayers = tuple[tuple[int, int, int], ...]
"""(features, width, stride) of each convolution, first to last."""

PAPER_CONV_LAYERS: ConvLayers = ((512, 10, 5), *((512, 3, 2),) * 4, *((512, 2, 2),) * 2)
"""Section 4.2: a frame sees 400 samples (25 ms) and starts 320 samples (20 ms) after the one before."""


def num_frames(num_samples: int, layers: ConvLayers) -> int:
    """Frames that `num_samples` samples give: floor((n - width) / stride) + 1 in each layer, never below 0."""
    return max(_frames(num_samples, layers), 0)


def num_samples(num_frames: int, layers: ConvLayers) -> int:
    """The fewest samples that give `num_frames` frames (at least 1): the receptive field for one frame."""
    for _, width, stride in reversed(layers):
        num_frames = (num_frames - 1) * stride + width
    return num_frames


def num_valid_frames(num_samples: Int[Array, " batch"], layers: ConvLayers) -> Int[Array, " batch"]:
    """Frames of each clip that see real audio alone; 0 for a clip shorter than the receptive field."""
    return jnp.maximum(_frames(num_samples, layers), 0)


def valid_mask(num_valid: Int[Array, " batch"], length: int) -> Bool[Array, "batch length"]:
    """True at the first `num_valid` positions of each row."""
    return jnp.arange(length)[None, :] < num_valid[:, None]


def _frames(n, layers: ConvLayers):
    for _, width, stride in layers:
        n = (n - width) // stride + 1
    return n
