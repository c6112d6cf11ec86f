"""Attention over the valid frames of clips, by the means of the platform that a program is compiled for."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from w2v2_jax import fused_attention
from w2v2_jax.frames import valid_mask
from w2v2_jax.layers import drop
from w2v2_jax.sharding import on_each_device

PerHead = Float[Array, "batch frame head head_dim"]

HEADS = ("batch", "frame", "head", "head_dim")
SCALARS = (("batch",), ("batch",), ("head",))


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def attention(
    query: PerHead,
    key: PerHead,
    value: PerHead,
    num_valid: Int[Array, " batch"],
    rng: Key[Array, ""],
    dropout: float,
) -> PerHead:
    """softmax(query key' / sqrt(head_dim)) value over the first `num_valid` frames of each clip, softmax in float32.

    Each weight is dropped with probability `dropout`, as `rng` says, and the others are scaled to make up for it.
    Nothing of size frame x frame is kept for the backward pass, which makes the weights again.
    """
    plain = functools.partial(plain_attention, dropout=dropout)
    if not fused_attention.fits(query):
        return plain(query, key, value, num_valid, rng)
    return jax.lax.platform_dependent(
        query, key, value, num_valid, rng, tpu=functools.partial(_fused_forward, dropout=dropout), default=plain
    )


def plain_attention(
    query: PerHead,
    key: PerHead,
    value: PerHead,
    num_valid: Int[Array, " batch"],
    rng: Key[Array, ""],
    *,
    dropout: float,
) -> PerHead:
    """`attention` in operations that every platform has."""
    scores = jnp.einsum("bthd,bshd->bhts", query, key, preferred_element_type=jnp.float32)
    mask = valid_mask(num_valid, query.shape[1])[:, None, None, :]
    scores = jnp.where(mask, scores / math.sqrt(query.shape[-1]), jnp.finfo(jnp.float32).min)
    weights = drop(jax.nn.softmax(scores, axis=-1).astype(value.dtype), rng, dropout)
    return jnp.einsum("bhts,bshd->bthd", weights, value)


def _keep_arguments(*arguments: Any) -> tuple[PerHead, tuple[Any, ...]]:
    *arrays, rng, _ = arguments
    # As numbers: before 0.10.2 JAX can't keep keys of layers that may be dropped and are made again.
    kept_rng = jax.tree_util.Partial(_key_of(str(jax.random.key_impl(rng))), jax.random.key_data(rng))
    return attention(*arguments), (*arrays, kept_rng)


@functools.cache
def _key_of(impl: str) -> Callable[[Array], Key[Array, ""]]:
    """What makes a key of its numbers."""
    return functools.partial(jax.random.wrap_key_data, impl=impl)


def _backward(dropout: float, kept: tuple[Any, ...], gradient: PerHead) -> tuple[PerHead | None, ...]:
    *arrays, kept_rng = kept
    arguments = (*arrays, kept_rng())

    def plain(query, key, value, num_valid, rng, gradient):
        def forward(query, key, value):
            return plain_attention(query, key, value, num_valid, rng, dropout=dropout)

        return jax.vjp(forward, query, key, value)[1](gradient)

    if not fused_attention.fits(arguments[0]):
        return *plain(*arguments, gradient), None, None
    fused = functools.partial(_fused_backward, dropout=dropout)
    return *jax.lax.platform_dependent(*arguments, gradient, tpu=fused, default=plain), None, None


attention.defvjp(_keep_arguments, _backward)


def _fused_forward(query, key, value, num_valid, rng, *, dropout: float) -> PerHead:
    kernel = functools.partial(fused_attention.forward, dropout=dropout)
    run = on_each_device(kernel, (*(HEADS,) * 3, *SCALARS), HEADS)
    return run(query, key, value, num_valid, *_numbers(query, rng))


def _fused_backward(query, key, value, num_valid, rng, gradient, *, dropout: float) -> tuple[PerHead, ...]:
    kernel = functools.partial(fused_attention.backward, dropout=dropout)
    run = on_each_device(kernel, (*(HEADS,) * 3, *SCALARS, HEADS), (HEADS,) * 3)
    return run(query, key, value, num_valid, *_numbers(query, rng), gradient)


def _numbers(query: PerHead, rng: Key[Array, ""]) -> tuple[Int[Array, " batch"], Int[Array, " head"]]:
    """A seed for each clip and a number for each head, from which every device makes bits of its own."""
    batch, _, heads, _ = query.shape
    return jax.lax.bitcast_convert_type(jax.random.bits(rng, (batch,)), jnp.int32), jnp.arange(heads)
