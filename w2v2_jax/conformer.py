"""Conformer layers for the context network (arXiv:2005.08100), as published for wav2vec 2.0.

A published conformer is `ContextNetwork(layer=ConformerLayer(...), position=CarriedPositionalConv(...),
first_norm=Identity, last_norm=LayerNorm)`. Clips know their positions in attention: `RelativeAttention` or
`RotaryAttention`; with `context_network.SelfAttention` they know none but what the convolutions tell.
"""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.nn.initializers import glorot_uniform, ones, zeros
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32

from w2v2_jax.context_network import Context, FeedForward, PositionalConv, Valid
from w2v2_jax.layers import BERT_INIT, NORM_EPS, TORCH_INIT, Dropout, LayerNorm, Linear, logical, swish

LONGEST_WAVE = 10_000
"""Positions are told by sines and cosines from a wavelength of 2 pi frames to nearly 2 pi times this many."""


def sinusoids(num_frames: int, dim: int) -> Float[Array, "distance dim"]:
    """Sines (even places) and cosines (odd places) of every distance from `num_frames` - 1 down to -(`num_frames` - 1).

    Frequencies are rounded as in transformers, to the last bit: at a thousand frames that bit is seen.

    Raises:
        ValueError: if `dim` is odd.
    """
    _check_even(dim)
    exponents = np.arange(0, dim, 2, dtype=np.float32) * np.float32(-math.log(LONGEST_WAVE) / dim)
    frequencies = np.exp(exponents.astype(np.float64)).astype(np.float32)
    angles = jnp.arange(num_frames - 1, -num_frames, -1, dtype=jnp.float32)[:, None] * frequencies[None, :]
    return jnp.stack([jnp.sin(angles), jnp.cos(angles)], axis=-1).reshape(-1, dim)


def rotary_frequencies(head_dim: int) -> Float32[np.ndarray, " pair"]:
    """Radians per frame that each pair of dimensions of a head is turned by, rounded as in transformers.

    Raises:
        ValueError: if `head_dim` is odd.
    """
    _check_even(head_dim)
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    return np.float32(1) / (LONGEST_WAVE ** exponents.astype(np.float64)).astype(np.float32)


def rotate(x: Float[Array, "batch frame head head_dim"]) -> Float[Array, "batch frame head head_dim"]:
    """Turns dimensions i and i + head_dim / 2 of frame t, as a pair, by an angle proportional to t (arXiv:2104.09864).

    Raises:
        ValueError: if `head_dim` is odd.
    """
    frames = jnp.arange(x.shape[1], dtype=jnp.float32)
    angles = (frames[:, None] * rotary_frequencies(x.shape[3])[None, :])[None, :, None, :]
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = (first * jnp.cos(angles) - second * jnp.sin(angles), second * jnp.cos(angles) + first * jnp.sin(angles))
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)


def _check_even(dim: int) -> None:
    if dim % 2:
        raise ValueError(f"{dim} dimensions can't be cut into pairs of a sine and a cosine; make the number even")


def by_key(scores: Float[Array, "batch head frame distance"]) -> Float[Array, "batch head frame frame"]:
    """From scores of each query frame by distance, in the order of `sinusoids`, to scores by key frame.

    Key j is at distance i - j from query i, which is place n - 1 - i + j of 2 n - 1: each row starts one place before
    the last one's. With one place more in a row, rows of 2 n - 1 places cut from the whole do just that.
    """
    *rows, n, _ = scores.shape
    padded = jnp.pad(scores, ((0, 0), (0, 0), (0, 0), (1, 0))).reshape(*rows, 2 * n * n)
    return padded[..., n:].reshape(*rows, n, 2 * n - 1)[..., :n]


class _PlacedAttention(nn.Module):
    """Multi-head attention over the valid frames of a clip, with places for what tells positions."""

    num_heads: int
    dropout: float

    @nn.compact
    def __call__(self, x: Context, valid: Valid) -> Context:
        dim = x.shape[-1]
        if dim % self.num_heads:
            raise ValueError(f"{self.num_heads} heads can't share {dim} dimensions; make the width a multiple")
        heads = (self.num_heads, dim // self.num_heads)
        placed = self._place(x.reshape(*x.shape[:2], *heads)).reshape(x.shape)
        inputs = {"query": placed, "key": placed, "value": x}
        axes = ("embed", "head", "head_dim")
        query, key, value = (Linear(heads, axes, BERT_INIT, name=n)(y) for n, y in inputs.items())
        scores = self._score(query, key) / math.sqrt(heads[1])
        scores = jnp.where(valid[:, None, None, :], scores, jnp.finfo(jnp.float32).min)
        weights = Dropout(self.dropout)(jax.nn.softmax(scores, axis=-1).astype(value.dtype))
        y = jnp.einsum("bhts,bshd->bthd", weights, value)
        return Linear((dim,), ("head", "head_dim", "embed"), BERT_INIT, name="out")(y)

    def _place(self, x: Array) -> Array:
        return x

    def _score(self, query: Array, key: Array) -> Array:
        return jnp.einsum("bthd,bshd->bhts", query, key, preferred_element_type=jnp.float32)


class RotaryAttention(_PlacedAttention):
    """Attention between frames that are rotated by their position.

    As published, it is the input of the query and key maps that is cut into heads and rotated, not what they give; so
    scores depend on more than the distance of two frames.
    """

    def _place(self, x: Array) -> Array:
        return rotate(x)


class RelativeAttention(_PlacedAttention):
    """Attention by content and by the distance of two frames, as in Transformer-XL (arXiv:1901.02860, section 3.3).

    The two biases are that paper's u and v; the queries of a head share them.
    """

    def _score(self, query: Array, key: Array) -> Array:
        num_frames, *heads = query.shape[1:]
        positions = sinusoids(num_frames, math.prod(heads)).astype(query.dtype)
        axes = ("embed", "head", "head_dim")
        positions = Linear(tuple(heads), axes, BERT_INIT, use_bias=False, name="position")(positions)
        of_content = query + self._bias("content_bias", query)
        of_position = query + self._bias("position_bias", query)
        by_distance = jnp.einsum("bthd,rhd->bhtr", of_position, positions, preferred_element_type=jnp.float32)
        return super()._score(of_content, key) + by_key(by_distance)

    def _bias(self, name: str, like: Array) -> Array:
        bias = self.param(name, logical(glorot_uniform(), ("head", "head_dim")), like.shape[2:])
        return jnp.broadcast_to(bias.astype(like.dtype), like.shape)


class DepthwiseConv(nn.Module):
    """A convolution of each channel by itself, with zeros at the ends, that keeps the number of frames.

    Written as a sum over taps, which is one loop over the frames for XLA; its grouped convolution takes many times as
    long on the CPU. The sum is taken in float32.
    """

    width: int

    @nn.compact
    def __call__(self, x: Float[Array, "batch frame channel"]) -> Float[Array, "batch frame channel"]:
        num_frames, channels = x.shape[1:]
        init = logical(TORCH_INIT.kernel(self.width), ("width", "channel_in", "mlp"))
        kernel = self.param("kernel", init, (self.width, 1, channels)).astype(x.dtype).astype(jnp.float32)
        padded = jnp.pad(x, ((0, 0), (self.width // 2, self.width // 2), (0, 0))).astype(jnp.float32)
        return sum(padded[:, w : w + num_frames] * kernel[w][None] for w in range(self.width)).astype(x.dtype)


class FrozenBatchNorm(nn.Module):
    """Batch norm by its running statistics, in training too; computed in float32.

    The statistics are parameters that get no gradient: those of a checkpoint stay as published, a clip never depends
    on its batch or on padding, and the train step keeps no state beside the parameters. The price: a model trained
    from scratch, whose statistics start at mean 0 and variance 1, learns without batch normalisation.
    """

    @nn.compact
    def __call__(self, x: Float[Array, "*rows channel"]) -> Float[Array, "*rows channel"]:
        shape = x.shape[-1:]
        mean, variance = _RunningStatistics(name="statistics")(shape)
        scale = self.param("scale", logical(ones, ("mlp",)), shape) * jax.lax.rsqrt(variance + NORM_EPS)
        bias = self.param("bias", logical(zeros, ("mlp",)), shape)
        mean, scale, bias = (jnp.broadcast_to(p, x.shape) for p in (mean, scale, bias))
        return ((x.astype(jnp.float32) - mean) * scale + bias).astype(x.dtype)


class _RunningStatistics(nn.Module):
    """Mean and variance of each channel; `count`, the batches they come from (torch's), only travels with them.

    The optimiser keeps its weight decay off all that is called `statistics`.
    """

    @nn.compact
    def __call__(self, shape: tuple[int, ...]) -> tuple[Float[Array, " channel"], Float[Array, " channel"]]:
        self.param("count", logical(zeros, ()), ())
        mean = self.param("mean", logical(zeros, ("mlp",)), shape)
        variance = self.param("variance", logical(ones, ("mlp",)), shape)
        return jax.lax.stop_gradient(mean), jax.lax.stop_gradient(variance)


class ConvolutionModule(nn.Module):
    """Norm, gated linear map, convolution of each channel by itself, batch norm, activation, linear map.

    The convolution sees zeros beyond the end of a clip, as it does when the clip is alone; fairseq and transformers
    let it see what became of the padding.
    """

    width: int
    activation: Callable[[Array], Array]
    dropout: float

    def __post_init__(self):
        super().__post_init__()
        if self.width < 1 or self.width % 2 == 0:
            raise ValueError(f"a convolution of width {self.width} has no middle frame; make the width odd")

    @nn.compact
    def __call__(self, x: Context, valid: Valid, dtype: DTypeLike) -> Context:
        dim = x.shape[-1]
        x = LayerNorm(name="norm")(x).astype(dtype)
        x = Linear((2 * dim,), ("embed", "mlp"), TORCH_INIT, use_bias=False, name="up")(x)
        # Between the linear maps in float32: little work, and many roundings otherwise.
        x, gate = jnp.split(x.astype(jnp.float32), 2, axis=-1)
        x = jnp.where(valid[:, :, None], x * jax.nn.sigmoid(gate), 0)
        x = DepthwiseConv(self.width, name="depthwise")(x)
        x = self.activation(FrozenBatchNorm(name="batch_norm")(x)).astype(dtype)
        x = Linear((dim,), ("mlp", "embed"), TORCH_INIT, use_bias=False, name="down")(x)
        return Dropout(self.dropout)(x)


class ConformerLayer(nn.Module):
    """Half a feed-forward step, attention, convolution, half a feed-forward step; a norm at the end.

    `attention` is called with the number of heads and `attention_dropout`, which acts on its weights and on its
    output; `width` is the convolution's, an odd number of frames; `dropout` acts on the output of both feed-forward
    maps, `activation_dropout` within them, `convolution_dropout` on the output of the convolution module.
    """

    num_heads: int = 12
    ffn_dim: int = 3072
    attention: Callable[[int, float], nn.Module] = RelativeAttention
    width: int = 31
    activation: Callable[[Array], Array] = swish
    dropout: float = 0.1
    attention_dropout: float = 0.1
    activation_dropout: float = 0.1
    convolution_dropout: float = 0.1

    @nn.compact
    def __call__(self, x: Context, valid: Valid, dtype: DTypeLike = jnp.float32) -> Context:
        x = x + 0.5 * self._feed_forward("first_ffn", x, dtype)
        attention = self.attention(self.num_heads, self.attention_dropout, name="attention")
        attended = attention(LayerNorm(name="attention_norm")(x).astype(dtype), valid)
        x = x + Dropout(self.attention_dropout)(attended)
        convolution = ConvolutionModule(self.width, self.activation, self.convolution_dropout, name="convolution")
        x = x + convolution(x, valid, dtype)
        x = x + 0.5 * self._feed_forward("second_ffn", x, dtype)
        return LayerNorm(name="output_norm")(x)

    def _feed_forward(self, name: str, x: Context, dtype: DTypeLike) -> Context:
        feed_forward = FeedForward(self.ffn_dim, self.activation_dropout, self.activation, name=name)
        return Dropout(self.dropout)(feed_forward(LayerNorm(name=f"{name}_norm")(x).astype(dtype)))


class CarriedPositionalConv(PositionalConv):
    """The parameters of `PositionalConv`, and no positions: stands in `ContextNetwork.position`.

    Published conformers carry this convolution and never call it. A checkpoint keeps it, so that it can go back to
    where it came from; XLA drops the work.
    """

    def __call__(self, x: Context) -> Context:
        super().__call__(x[:, :1])
        return jnp.zeros_like(x)
