"""Attention of short sequences as a TPU kernel: the weights of a few heads never leave the chip.

The frames of BASE's longest clips are 781: all scores of a block of rows fit on the chip at once, so that a softmax is
one pass, without the running maxima of kernels for long sequences. Weights are dropped by bits of the chip's own
generator, and the backward kernel makes both again. What goes in and out is [batch, frame, head, head_dim] as the
linear maps around it give and take it: heads that share a row of 128 lanes are worked on together, nothing is
transposed in memory.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Bool, Float, Int

LANES = 128
ROWS = 256
"""Query frames worked on together: fewer starve the matrix units, more fill the memory of small chips."""
LONGEST = 1024
"""Frames up to which the blocks of every generation of TPU fit."""

PerHead = Float[Array, "batch frame head head_dim"]


def fits(query: PerHead) -> bool:
    """Whether the kernel is made for a sequence of this length, and heads of this width."""
    return query.shape[1] <= LONGEST and LANES % query.shape[3] == 0


def forward(
    query: PerHead,
    key: PerHead,
    value: PerHead,
    num_valid: Int[Array, " batch"],
    seeds: Int[Array, " batch"],
    heads: Int[Array, " head"],
    *,
    dropout: float,
) -> PerHead:
    """softmax(query key' / sqrt(head_dim)) value over the first `num_valid` frames, weights dropped.

    What is dropped follows from a row's seed and a head's number.
    """
    return _call(_forward_kernel, 1, (num_valid, seeds, heads), (query, key, value), dropout)[0]


def backward(
    query: PerHead,
    key: PerHead,
    value: PerHead,
    num_valid: Int[Array, " batch"],
    seeds: Int[Array, " batch"],
    heads: Int[Array, " head"],
    gradient: PerHead,
    *,
    dropout: float,
) -> tuple[PerHead, PerHead, PerHead]:
    """Gradients to query, key and value from that to `forward`'s result."""
    return tuple(_call(_backward_kernel, 3, (num_valid, seeds, heads), (query, key, value, gradient), dropout))


def _call(
    kernel: Callable[..., None],
    num_results: int,
    scalars: tuple[Array, ...],
    arrays: tuple[PerHead, ...],
    dropout: float,
) -> list[PerHead]:
    batch, frames, num_heads, head_dim = arrays[0].shape
    # One axis for all heads: with short last axes XLA would lay the frames along the lanes.
    arrays = tuple(x.reshape(batch, frames, num_heads * head_dim) for x in arrays)
    # Blocks are whole rows of lanes, or the whole width. Their frames are a multiple of the lanes, with whatever beyond
    # the last one that there is: to fill them up in memory would take longer than to leave it out in the kernels.
    together = LANES // head_dim if num_heads % (LANES // head_dim) == 0 else num_heads
    block = pl.BlockSpec((1, frames + -frames % LANES, together * head_dim), lambda row, heads, *_: (row, 0, heads))
    results = pl.pallas_call(
        functools.partial(kernel, frames=frames, head_dim=head_dim, dropout=dropout),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=len(scalars),
            grid=(batch, num_heads // together),
            in_specs=[block] * len(arrays),
            out_specs=[block] * num_results,
        ),
        out_shape=[jax.ShapeDtypeStruct(arrays[0].shape, arrays[0].dtype)] * num_results,
        cost_estimate=_cost(arrays, num_heads, num_results),
        name=kernel.__name__.strip("_"),
    )(*scalars, *arrays)
    return [x.reshape(batch, frames, num_heads, head_dim) for x in results]


def _cost(arrays: tuple[Array, ...], num_heads: int, num_results: int) -> pl.CostEstimate:
    """Forward there are two products of frames, frames and head_dim, backward there are five."""
    batch, frames, width = arrays[0].shape
    num_products = 2 if num_results == 1 else 5
    return pl.CostEstimate(
        flops=2 * num_products * batch * frames**2 * width,
        transcendentals=batch * frames**2 * num_heads,
        bytes_accessed=(len(arrays) + num_results) * arrays[0].nbytes,
    )


def _forward_kernel(
    num_valid, seeds, heads, query, key, value, result, *, frames: int, head_dim: int, dropout: float
) -> None:
    for lanes in _heads(seeds, heads, query, head_dim):
        keys, values = (_read(each, pl.ds(0, key.shape[1]), lanes, frames) for each in (key, value))
        for rows in _rows(query):
            weights, scale = _weights(query[0, rows, lanes], keys, num_valid)
            weights = jnp.where(_kept(weights.shape, dropout), weights, 0)
            mixed = _dot(weights.astype(values.dtype), values, 1, 0) * (scale / (1 - dropout))
            result[0, rows, lanes] = mixed.astype(result.dtype)


def _backward_kernel(
    num_valid,
    seeds,
    heads,
    query,
    key,
    value,
    gradient,
    to_query,
    to_key,
    to_value,
    *,
    frames: int,
    head_dim: int,
    dropout: float,
) -> None:
    unit = 1 / math.sqrt(head_dim)
    for lanes in _heads(seeds, heads, query, head_dim):
        keys, values = (_read(each, pl.ds(0, key.shape[1]), lanes, frames) for each in (key, value))
        to_keys = to_values = jnp.zeros((head_dim, key.shape[1]), jnp.float32)
        for rows in _rows(query):
            queries, gradients = (_read(each, rows, lanes, frames) for each in (query, gradient))
            weights, scale = _weights(queries, keys, num_valid)
            kept = _kept(weights.shape, dropout)
            scaled = (gradients * (scale / (1 - dropout))).astype(queries.dtype)
            undropped = jnp.where(kept, weights, 0).astype(queries.dtype)
            to_weights = jnp.where(kept, _dot(scaled, values, 1, 1), 0)
            mean = (weights * to_weights).sum(axis=1, keepdims=True) * scale
            to_scores = (weights * (to_weights - mean)).astype(queries.dtype)
            to_query[0, rows, lanes] = (_dot(to_scores, keys, 1, 0) * unit).astype(to_query.dtype)
            # The narrow factor is the one to transpose.
            to_keys += _dot(queries, to_scores, 0, 0)
            to_values += _dot(scaled, undropped, 0, 0)
        to_key[0, :, lanes] = (to_keys.T * unit).astype(to_key.dtype)
        to_value[0, :, lanes] = to_values.T.astype(to_value.dtype)


def _heads(seeds, heads, query, head_dim: int):
    """The lanes of each head of the block, with the generator set to where this block's bits begin."""
    together = query.shape[2] // head_dim
    pltpu.prng_seed(seeds[pl.program_id(0)], heads[pl.program_id(1) * together])
    return [pl.ds(head * head_dim, head_dim) for head in range(together)]


def _read(block, rows: pl.Slice, lanes: pl.Slice, frames: int) -> Float[Array, "frame head_dim"]:
    """Some frames of a head, with zeros for those beyond the last: what a block has there may be no number."""
    x = block[0, rows, lanes]
    if rows.start + rows.size <= frames:
        return x
    frame = rows.start + jax.lax.broadcasted_iota(jnp.int32, x.shape, 0)
    return jnp.where(frame < frames, x, jnp.zeros_like(x))


def _rows(query):
    return [pl.ds(start, min(ROWS, query.shape[1] - start)) for start in range(0, query.shape[1], ROWS)]


def _weights(queries: Float[Array, "row head_dim"], keys: Float[Array, "frame head_dim"], num_valid):
    """Attention weights before they are scaled to sum to 1, and the scale for each row."""
    scores = _dot(queries, keys, 1, 1) * (1 / math.sqrt(queries.shape[1]))
    frame = jax.lax.broadcasted_iota(jnp.int32, (1, len(keys)), 1)
    scores = jnp.where(frame < num_valid[pl.program_id(0)], scores, jnp.finfo(jnp.float32).min)
    weights = jnp.exp(scores - scores.max(axis=1, keepdims=True))
    return weights, 1 / weights.sum(axis=1, keepdims=True)


def _kept(shape: tuple[int, int], dropout: float) -> Bool[Array, "row frame"]:
    """The next random bits of the chip as what is kept; a signed integer is below the limit as often as dropped."""
    return pltpu.prng_random_bits(shape) >= round(dropout * 2**32) - 2**31


def _dot(a: Array, b: Array, of_a: int, of_b: int) -> Array:
    """The product summed over those axes, in float32."""
    return jax.lax.dot_general(a, b, (((of_a,), (of_b,)), ((), ())), preferred_element_type=jnp.float32)
