"""Prefix beam search of CTC outputs without a language model: the likeliest transcripts and their log probabilities."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt32

from w2v2_jax.ctc import BLANK
from w2v2_jax.decoding.alignment import Alignment, align


class NBest(NamedTuple):
    """Transcripts of each clip, all different, the likeliest first.

    `labels` are 0 beyond `num_labels`. `log_probs` are in nats, of a transcript by all its paths that stayed in the
    beam: at most the true ones, and equal to them if nothing was pruned. Where there are fewer transcripts than
    places, the rest have log probability -inf and no labels.
    """

    labels: Int[Array, "batch place frame"]
    num_labels: Int[Array, "batch place"]
    log_probs: Float[Array, "batch place"]


class _Beam(NamedTuple):
    """The prefixes after a frame, all different; impossible ones have both log probabilities -inf."""

    hashes: UInt32[Array, "place word"]
    parents: UInt32[Array, "place word"]  # the hashes without the last label
    last: Int[Array, " place"]  # the blank for the empty prefix
    blank: Float[Array, " place"]  # log probability by the paths that end in a blank
    label: Float[Array, " place"]  # and by those that end in the last label


@functools.partial(jax.jit, static_argnames=("beam", "blank"))
def prefix_beam_search(
    log_probs: Float[Array, "batch frame label"], num_frames: Int[Array, " batch"], beam: int, blank: int = BLANK
) -> NBest:
    """The `beam` likeliest transcripts by the search of Hannun et al. 2014, "First-pass large vocabulary continuous
    speech recognition using bi-directional recurrent DNNs", algorithm 1, without its language model.

    A transcript has the probability of all its paths together, unlike the single path of `greedy_decode`. After each
    frame the `beam` likeliest prefixes go on; the result is exact if there are never more. Equal prefixes are found by
    hashes of 64 bits. Computed in float32; -inf forbids a label at a frame. Frames beyond `num_frames` count nowhere;
    a clip without a frame has the empty transcript of log probability 0 alone.
    """
    search = functools.partial(_search_row, beam=beam, blank=blank)
    return jax.vmap(search)(log_probs.astype(jnp.float32), num_frames)


@functools.partial(jax.jit, static_argnames="blank")
def align_n_best(
    log_probs: Float[Array, "batch frame label"], num_frames: Int[Array, " batch"], n_best: NBest, blank: int = BLANK
) -> Alignment:
    """When the labels of each transcript were spoken: an `Alignment` whose leaves have axes [batch place ...]."""
    aligned = jax.vmap(functools.partial(align, blank=blank), in_axes=(None, None, 1, 1), out_axes=1)
    return aligned(log_probs, num_frames, n_best.labels, n_best.num_labels)


def _search_row(log_probs: Float[Array, "frame label"], num_frames: Int[Array, ""], beam: int, blank: int) -> NBest:
    nothing = jnp.full(beam, -jnp.inf)
    # The first place has the empty prefix. The others start with hashes of their own, so that none is another's parent.
    hashes = jnp.array([[0x811C9DC5, 0x85EBCA6B]], jnp.uint32) + jnp.arange(beam, dtype=jnp.uint32)[:, None]
    start = _Beam(
        hashes=hashes,
        parents=~hashes,
        last=jnp.full(beam, blank),
        blank=nothing.at[0].set(0),
        label=nothing,
    )
    unmoved = jnp.arange(beam), jnp.full(beam, blank)

    def step(state, frame):
        emissions, is_valid = frame
        moved = _advance(state, emissions, blank)
        return jax.tree.map(functools.partial(jnp.where, is_valid), moved, (state, unmoved))

    def trace(place, moves):
        came_from, appended = moves
        return came_from[place], appended[place]

    valid = jnp.arange(log_probs.shape[0]) < num_frames
    final, moves = jax.lax.scan(step, start, (log_probs, valid))
    totals, order = jax.lax.top_k(jnp.logaddexp(final.blank, final.label), beam)
    _, labels = jax.lax.scan(trace, order, moves, reverse=True)
    labels = jnp.where(totals > -jnp.inf, labels, blank).T
    written = labels != blank
    packed = jnp.argsort(~written, axis=1, stable=True)
    return NBest(
        labels=jnp.take_along_axis(jnp.where(written, labels, 0), packed, axis=1),
        num_labels=jnp.sum(written, axis=1),
        log_probs=totals,
    )


def _advance(state: _Beam, emissions: Float[Array, " label"], blank: int):
    """The beam after a frame, and for each place of it where it was before and what was appended (or the blank)."""
    beam, num_labels = state.last.size, emissions.size
    total = jnp.logaddexp(state.blank, state.label)
    label = jnp.arange(num_labels)[None]
    # A label that repeats the last one makes a longer prefix only after a blank.
    before = jnp.where(label == state.last[:, None], state.blank[:, None], total[:, None])
    longer = jnp.where(label == blank, -jnp.inf, before + emissions[None])

    # Where a longer prefix is in the beam already, that place takes it over.
    is_parent = jnp.all(state.parents[:, None] == state.hashes[None], axis=-1)
    found, parent = jnp.any(is_parent, axis=1), jnp.argmax(is_parent, axis=1)
    grown = jnp.where(found, longer[parent, state.last], -jnp.inf)
    longer = longer.at[jnp.where(found, parent, beam), state.last].set(-jnp.inf, mode="drop")
    stays_blank = total + emissions[blank]
    stays_label = jnp.logaddexp(state.label + emissions[state.last], grown)

    # Among candidates of log probability -inf those that stay are chosen, being first; so no prefix is there twice.
    candidates = jnp.concatenate([jnp.logaddexp(stays_blank, stays_label), longer.reshape(-1)])
    _, chosen = jax.lax.top_k(candidates, beam)
    stays = chosen < beam
    place, appended = jnp.divmod(jnp.maximum(chosen - beam, 0), num_labels)
    place = jnp.where(stays, chosen, place)
    appended = jnp.where(stays, blank, appended)
    hashes = state.hashes[place]
    moved = _Beam(
        hashes=jnp.where(stays[:, None], hashes, _extended(hashes, appended)),
        parents=jnp.where(stays[:, None], state.parents[place], hashes),
        last=jnp.where(stays, state.last[place], appended),
        blank=jnp.where(stays, stays_blank[place], -jnp.inf),
        label=jnp.where(stays, stays_label[place], candidates[chosen]),
    )
    return moved, (place, appended)


def _extended(hashes: UInt32[Array, "place word"], labels: Int[Array, " place"]) -> UInt32[Array, "place word"]:
    mixed = (hashes ^ labels.astype(jnp.uint32)[:, None]) * jnp.array([[0x01000193, 0x9E3779B1]], jnp.uint32)
    return mixed ^ (mixed >> 15)
