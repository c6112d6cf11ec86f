"""Levenshtein distance of integer sequences on the device, so that error rates are sums like any other metric."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, UInt32


class Words(NamedTuple):
    """Words as 32-bit hashes, packed to the left."""

    ids: UInt32[Array, "batch word"]
    count: Int[Array, " batch"]


def edit_distance(
    hypothesis: Array, num_hypothesis: Int[Array, " batch"], reference: Array, num_reference: Int[Array, " batch"]
) -> Int[Array, " batch"]:
    """The fewest substitutions, deletions and insertions between the valid heads of each pair of rows.

    Integer arrays [batch, symbol], whose lengths may differ. One row of the dynamic programme a step: what depends
    on the cell to the left is a running minimum.
    """
    return jax.vmap(_distance)(hypothesis, num_hypothesis, reference, num_reference)


def _distance(hypothesis: Array, num_hypothesis: Array, reference: Array, num_reference: Array) -> Array:
    position = jnp.arange(reference.shape[0] + 1)

    def row(previous, symbol_and_index):
        symbol, index = symbol_and_index
        substituted = previous[:-1] + (reference != symbol)
        best = jnp.minimum(previous + 1, jnp.concatenate([previous[:1] + 1, substituted]))
        current = jax.lax.cummin(best - position) + position
        return jnp.where(index < num_hypothesis, current, previous), None

    steps = (hypothesis, jnp.arange(hypothesis.shape[0]))
    last, _ = jax.lax.scan(row, position, steps)
    return last[num_reference]


def words_of(labels: Int[Array, "batch label"], num_labels: Int[Array, " batch"], boundary: int) -> Words:
    """The words that `boundary` separates, empty ones left out. Two words share a hash once in four billion."""
    return jax.vmap(lambda row, count: _words(row, count, boundary))(labels, num_labels)


def _words(labels: Array, num_labels: Array, boundary: int) -> Words:
    size = labels.shape[0]
    inside = (jnp.arange(size) < num_labels) & (labels != boundary)

    def step(state, label_and_inside):
        hashed, begun = state
        label, is_inside = label_and_inside
        grown = (hashed ^ label.astype(jnp.uint32)) * jnp.uint32(16777619)  # FNV-1a
        ended = begun & ~is_inside
        fresh = jnp.uint32(2166136261)
        return (jnp.where(is_inside, grown, fresh), is_inside), (hashed, ended)

    # A boundary at the end closes the last word.
    ended_labels = jnp.append(labels, boundary)
    start = (jnp.uint32(2166136261), jnp.bool_(False))
    _, (hashes, ended) = jax.lax.scan(step, start, (ended_labels, jnp.append(inside, False)))
    order = jnp.argsort(~ended, stable=True)
    return Words(hashes[order], ended.sum())
