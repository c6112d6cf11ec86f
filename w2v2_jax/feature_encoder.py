"""The feature encoder f: X -> Z of section 2: seven strided convolutions from samples to frames."""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn.initializers import ones, variance_scaling, zeros
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from w2v2_jax.batches import AudioBatch
from w2v2_jax.frames import PAPER_CONV_LAYERS, ConvLayers, num_frames, num_samples, num_valid_frames, valid_mask
from w2v2_jax.layers import NORM_EPS, TORCH_INIT, LayerNorm, gelu, logical
from w2v2_jax.sharding import place

KERNEL_AXES = ("width", "channel_in", "channel")
KERNEL_INIT = variance_scaling(2.0, "fan_in", "normal")
"""Kaiming's normal distribution: variance 2 over the number of inputs to an output."""


def conv1d(
    x: Float[Array, "batch time channel"], kernel: Float[Array, "width channel feature"], stride: int
) -> Float[Array, "batch frame feature"]:
    """A convolution over time without padding."""
    return jax.lax.conv_general_dilated(
        x, kernel.astype(x.dtype), (stride,), "VALID", dimension_numbers=("NWC", "WIO", "NWC")
    )


class PlainConv(nn.Module):
    """Convolution and GELU; keeps one frame in every `stride`."""

    features: int
    width: int
    stride: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "part time channel"], clips: AudioBatch, dtype: DTypeLike
    ) -> Float[Array, "part frame feature"]:
        kernel = self.param("kernel", logical(KERNEL_INIT, KERNEL_AXES), (self.width, x.shape[-1], self.features))
        return gelu(conv1d(x.astype(dtype), kernel, self.stride))


class LayerNormConv(nn.Module):
    """Convolution with bias, layer norm over channels, GELU: every block of LARGE LV-60k."""

    features: int
    width: int
    stride: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "part time channel"], clips: AudioBatch, dtype: DTypeLike
    ) -> Float[Array, "part frame feature"]:
        kernel = self.param("kernel", logical(KERNEL_INIT, KERNEL_AXES), (self.width, x.shape[-1], self.features))
        fan_in = self.width * x.shape[-1]
        bias = self.param("bias", logical(TORCH_INIT.bias(fan_in), ("channel",)), (self.features,))
        y = conv1d(x.astype(dtype), kernel, self.stride)
        return gelu(LayerNorm("channel", name="norm")(y.astype(jnp.float32) + jnp.broadcast_to(bias, y.shape)), dtype)


class GroupNormConv(nn.Module):
    """Convolution of the waveform, each channel normalised over time, GELU: the first block of BASE.

    Statistics are taken over the valid frames of whole clips, so that a padded clip gives what it gives by itself.
    There is one input channel: the statistics of every output channel follow from the mean and covariance of the
    frames of samples, in float32, and the norm becomes part of the kernel; no pass over the activations is spent on it.
    Samples and kernel count as in float32 in any `dtype`: an error here would be in everything, and grow.
    """

    features: int
    width: int
    stride: int

    def statistics_over(self, valid: Bool[Array, "batch frame"]) -> Bool[Array, "batch frame"]:
        """The frames that mean and variance are taken over."""
        return valid

    @nn.compact
    def __call__(
        self, x: Float[Array, "part time 1"], clips: AudioBatch, dtype: DTypeLike
    ) -> Float[Array, "part frame feature"]:
        kernel = self.param("kernel", logical(KERNEL_INIT, KERNEL_AXES), (self.width, 1, self.features))[:, 0]
        scale, bias = _ScaleAndBias(name="norm")(self.features)
        mean, covariance = self._moments(clips)
        variance = jnp.einsum("wf,bwv,vf->bf", kernel, covariance, kernel, precision="highest")
        folded = kernel[None] * (scale[None] * jax.lax.rsqrt(variance + NORM_EPS))[:, None, :]
        mean, folded = (jnp.repeat(each, x.shape[0] // len(each), axis=0) for each in (mean, folded))
        centred = unfold(x[..., 0], self.width, self.stride).astype(jnp.float32) - mean
        y = product_in_parts(centred, folded, dtype)
        return gelu(y + jnp.broadcast_to(bias, y.shape), dtype)

    def _moments(self, clips: AudioBatch) -> tuple[Float[Array, "batch width 1"], Float[Array, "batch width width"]]:
        """Mean and covariance of the frames of samples of each clip."""
        frames = unfold(clips.waveform, self.width, self.stride).astype(jnp.float32)
        num_valid = num_valid_frames(clips.num_samples, ((self.features, self.width, self.stride),))
        weight = self.statistics_over(valid_mask(num_valid, frames.shape[2])).astype(jnp.float32)
        weight = (weight / jnp.maximum(weight.sum(axis=1, keepdims=True), 1))[:, None, :]
        mean = (frames * weight).sum(axis=2, keepdims=True)
        centred = frames - mean
        return mean, jnp.einsum("bwt,bvt->bwv", centred * weight, centred, precision="highest")


def product_in_parts(
    x: Float[Array, "batch width frame"], kernel: Float[Array, "batch width feature"], dtype: DTypeLike
) -> Float[Array, "batch frame feature"]:
    """The product of each row's frames and kernel, in float32, by one product of numbers of `dtype`.

    A factor is what `dtype` can tell of it and the rest; that of both rests is too small to count. Three products of
    `width` terms are one of 3 `width`: a matrix unit, which takes 128, needs no longer for it.
    """
    if dtype == jnp.float32:
        return jnp.einsum("bwt,bwf->btf", x, kernel)
    (x, x_rest), (kernel, kernel_rest) = _parts(x, dtype), _parts(kernel, dtype)
    x, kernel = jnp.concatenate([x, x_rest, x], axis=1), jnp.concatenate([kernel, kernel, kernel_rest], axis=1)
    return jnp.einsum("bwt,bwf->btf", x, kernel, preferred_element_type=jnp.float32)


def _parts(x: Float[Array, "..."], dtype: DTypeLike) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    # Else XLA could take rounding and its reverse for nothing.
    finfo = jnp.finfo(dtype)
    rounded = jax.lax.reduce_precision(x, finfo.nexp, finfo.nmant)
    return rounded.astype(dtype), (x - rounded).astype(dtype)


class _ScaleAndBias(nn.Module):
    """The parameters of a norm over channels."""

    @nn.compact
    def __call__(self, features: int) -> tuple[Float[Array, " feature"], Float[Array, " feature"]]:
        scale = self.param("scale", logical(ones, ("channel",)), (features,))
        return scale, self.param("bias", logical(zeros, ("channel",)), (features,))


class FairseqGroupNormConv(GroupNormConv):
    """As `GroupNormConv`, with statistics over padding too: what fairseq and transformers compute for padded clips."""

    def statistics_over(self, valid: Bool[Array, "batch frame"]) -> Bool[Array, "batch frame"]:
        return jnp.ones_like(valid)


def unfold(x: Float[Array, "batch time"], width: int, stride: int) -> Float[Array, "batch width frame"]:
    """Overlapping frames of `width` samples, one every `stride`: sample w of frame t is x[t * stride + w]."""
    num_frames = (x.shape[1] - width) // stride + 1
    span = math.ceil(width / stride)
    x = jnp.pad(x, ((0, 0), (0, max(0, (num_frames + span) * stride - x.shape[1]))))
    rows = x[:, : (num_frames + span) * stride].reshape(x.shape[0], num_frames + span, stride).swapaxes(1, 2)
    shifted = [rows[:, :, i : i + num_frames] for i in range(span)]
    return jnp.concatenate(shifted, axis=1)[:, :width]


def cut(waveform: Float[Array, "batch sample"], num_parts: int, layers: ConvLayers) -> Float[Array, "part length"]:
    """Each clip in parts that make equally many frames, one after the other; parts overlap by what frames share."""
    batch, length = waveform.shape
    frames = max(math.ceil(num_frames(length, layers) / num_parts), 1)
    hop = num_samples(frames + 1, layers) - num_samples(1, layers)
    size = num_samples(frames, layers)
    waveform = jnp.pad(waveform, ((0, 0), (0, max((num_parts - 1) * hop + size - length, 0))))
    parts = [waveform[:, start : start + size] for start in range(0, num_parts * hop, hop)]
    return jnp.stack(parts, axis=1).reshape(batch * num_parts, size)


class FeatureEncoder(nn.Module):
    """Raw audio to latents z: `first` makes the first block, `rest` the others.

    Blocks work on each clip in `num_parts` parts of its time, which changes nothing but the speed: XLA for TPUs
    convolves some clips, if there aren't eight, by cutting them up itself, with copies around every layer; by its
    estimate the encoder and its gradient then take 67 ms for five clips of 15.6 s on a v5e chip, cut like this 12 ms.
    Blocks are called with the parts, with the `AudioBatch` of whole clips that they are from, and with the `dtype` of
    what they make.
    """

    layers: ConvLayers = PAPER_CONV_LAYERS
    first: Callable[[int, int, int], nn.Module] = GroupNormConv
    rest: Callable[[int, int, int], nn.Module] = PlainConv
    num_parts: int = 8

    @nn.compact
    def __call__(
        self, waveform: Float[Array, "batch sample"], num_samples: Int[Array, " batch"], dtype: DTypeLike = jnp.float32
    ) -> Float[Array, "batch frame feature"]:
        clips = AudioBatch(waveform, num_samples)
        x = cut(waveform, self.num_parts, self.layers)[:, :, None]
        makers = (self.first, *(self.rest,) * (len(self.layers) - 1))
        for i, (make, layer) in enumerate(zip(makers, self.layers, strict=True)):
            x = place(make(*layer, name=f"block_{i}")(x, clips, dtype), "batch", "frame", None)
        x = x.reshape(len(waveform), -1, x.shape[-1])[:, : num_frames(waveform.shape[1], self.layers)]
        return place(x, "batch", "frame", None)
