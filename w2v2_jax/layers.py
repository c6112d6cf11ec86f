"""What the networks are made of: weights with named axes, norms in float32, dropout, gradient scaling.

What is here computes in the precision of its input.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn.initializers import Initializer, normal, uniform, zeros
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

from w2v2_jax.random_bytes import random_bytes

logical = nn.with_logical_partitioning
"""Names the axes of a parameter, for the rules in `sharding` to map to the mesh."""

NORM_EPS = 1e-5


class LinearInit(NamedTuple):
    """Initialisers of a kernel and its bias, given the number of inputs to each output."""

    kernel: Callable[[int], Initializer]
    bias: Callable[[int], Initializer]


def symmetric_uniform(limit: float) -> Initializer:
    """U(-limit, limit)."""
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -limit, limit)


TORCH_INIT = LinearInit(lambda n: symmetric_uniform(1 / math.sqrt(n)), lambda n: symmetric_uniform(1 / math.sqrt(n)))
"""What torch gives a Linear or Conv1d bias, and fairseq leaves to every Linear outside the context network."""

BERT_INIT = LinearInit(lambda n: normal(0.02), lambda n: zeros)
"""Every Linear of the context network."""

UNIT_UNIFORM = uniform(1.0)
"""U(0, 1): codebooks and the mask embedding. (jax's `uniform()` is U(0, 0.01).)"""


class Linear(nn.Module):
    """An affine map of the last `len(inputs)` axes to `shape`; `axes` names the kernel's axes, inputs first.

    Without `use_bias` it has a kernel alone.
    A `precision` of None is the device's default, which on a TPU rounds the factors of a product to bfloat16.
    """

    shape: tuple[int, ...]
    axes: tuple[str, ...]
    initialisers: LinearInit = TORCH_INIT
    precision: str | None = None
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        num_inputs = len(self.axes) - len(self.shape)
        inputs = x.shape[-num_inputs:]
        fan_in = math.prod(inputs)
        kernel = self.param("kernel", logical(self.initialisers.kernel(fan_in), self.axes), (*inputs, *self.shape))
        # As one axis in and one out: the memory of chips comes in tiles that short last axes would leave empty.
        x = x.reshape(*x.shape[:-num_inputs], fan_in)
        y = jnp.dot(x, kernel.astype(x.dtype).reshape(fan_in, -1), precision=self.precision)
        if self.use_bias:
            bias = self.param("bias", logical(self.initialisers.bias(fan_in), self.axes[num_inputs:]), self.shape)
            y = y + jnp.broadcast_to(bias.astype(x.dtype).reshape(-1), y.shape)
        return y.reshape(*y.shape[:-1], *self.shape)


class LayerNorm(nn.Module):
    """Layer norm over the last axis with scale and bias, computed in float32."""

    axis: str = "embed"

    @nn.compact
    def __call__(self, x: Float[Array, "*rows feature"]) -> Float[Array, "*rows feature"]:
        scale = self.param("scale", logical(nn.initializers.ones, (self.axis,)), x.shape[-1:])
        bias = self.param("bias", logical(zeros, (self.axis,)), x.shape[-1:])
        x32 = x.astype(jnp.float32)
        centred = x32 - x32.mean(axis=-1, keepdims=True)
        normed = centred * jax.lax.rsqrt(jnp.square(centred).mean(axis=-1, keepdims=True) + NORM_EPS)
        scale, bias = (jnp.broadcast_to(p, x.shape) for p in (scale, bias))
        return (normed * scale + bias).astype(x.dtype)


class Identity(nn.Module):
    """Takes the place of a norm that an architecture does without."""

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        return x


class Dropout(nn.Module):
    """Dropout from 8 random bits a value; active where the caller passes a `dropout` key, else the identity.

    `rate` is met to the nearest 1/256 and the kept values are scaled by exactly what is kept.
    """

    rate: float

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.rate < 1:
            raise ValueError(f"a dropout rate of {self.rate} keeps nothing; give a number from 0 to below 1")

    def is_active(self) -> bool:
        """Whether calling this changes anything."""
        return self.rate > 0 and self.has_rng("dropout")

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        if not self.is_active():
            return x
        return drop(x, self.make_rng("dropout"), self.rate)


def drop(x: Float[Array, "..."], rng: Key[Array, ""], rate: float) -> Float[Array, "..."]:
    """Sets `rate` of the values to 0, met to the nearest 1/256 but never missed by all, and scales what is kept.

    At a `rate` of 0 the identity.
    """
    if not rate:
        return x
    dropped = max(1, min(255, round(rate * 256)))
    keep = random_bytes(rng, x.shape) >= dropped
    return jnp.where(keep, x * (256 / (256 - dropped)), 0).astype(x.dtype)


ERF_FIT = (7.9670765e-01, 3.78020188e-02, -4.85074055e-04, 4.33930209e-06)
"""Of x, x^3, x^5 and x^7 in the polynomial whose tanh is the erf of x / sqrt(2), to what bfloat16 can tell in `gelu`.

The greatest difference from artanh(erf(x / sqrt(2))) for 0 < x < 5.5, 0.0008, is as small as four terms make it.
"""


def gelu(x: Float[Array, "..."], dtype: DTypeLike | None = None) -> Float[Array, "..."]:
    """The exact GELU, x times the normal distribution function, as fairseq computes it; in `dtype`, else that of `x`.

    In float32: in bfloat16 the sum 1 + erf would lose the negative tail. For results that are rounded to bfloat16 the
    erf is a fit that is off by less than the rounding; it is less work than erf.
    """
    dtype = x.dtype if dtype is None else dtype
    if dtype == jnp.bfloat16:
        return _bfloat16_gelu(x)
    x32 = x.astype(jnp.float32)
    return (0.5 * x32 * (1 + jax.lax.erf(x32 * math.sqrt(0.5)))).astype(dtype)


@jax.custom_jvp
def _bfloat16_gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    return _gelu_and_slope(x)[0]


@_bfloat16_gelu.defjvp
def _bfloat16_gelu_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    # The rule for each operation would leave several arrays in float32 for the backward pass.
    value, slope = _gelu_and_slope(*primals)
    return value, slope * tangents[0].astype(slope.dtype)


def _gelu_and_slope(x: Float[Array, "..."]) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    x32 = x.astype(jnp.float32)
    # From 10 on the tanh is 1 and further powers would only overflow.
    square = jnp.minimum(x32 * x32, 100)
    c1, c3, c5, c7 = ERF_FIT
    erf = jnp.tanh(x32 * (c1 + square * (c3 + square * (c5 + square * c7))))
    twice_density = (1 - erf * erf) * (c1 + square * (3 * c3 + square * (5 * c5 + square * (7 * c7))))
    value, slope = 0.5 * x32 * (1 + erf), 0.5 * (1 + erf + x32 * twice_density)
    return value.astype(jnp.bfloat16), slope.astype(jnp.bfloat16)


def swish(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """x times its logistic function, also known as SiLU (arXiv:1710.05941); computed in float32."""
    x32 = x.astype(jnp.float32)
    return (x32 * jax.nn.sigmoid(x32)).astype(x.dtype)


def scale_gradient(x: Float[Array, "..."], scale: float) -> Float[Array, "..."]:
    """The identity, through which gradients return multiplied by `scale` (section 4.2: 0.1 for BASE).

    At 0 the backward pass of all that made `x` is not even computed.
    """
    return _scale_gradient(x, scale) if scale else jax.lax.stop_gradient(x)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _scale_gradient(x: Array, scale: float) -> Array:
    return x


_scale_gradient.defvjp(lambda x, scale: (x, None), lambda scale, _, gradient: (gradient * scale,))
