"""Forced alignment: when each label of a known transcript was spoken, by the best path of CTC."""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from w2v2_jax.ctc import BLANK


class AlignmentError(ValueError):
    """A transcript that its recording has no room for."""


class Alignment(NamedTuple):
    """The best path through a transcript: label i is spoken from frame `starts[i]` up to, not including, `stops[i]`.

    `scores` are mean log probabilities of the label over its frames and `log_probs` that of the whole path, blanks
    included, both in nats. A clip that no path can spell is not `feasible`: its labels are 0 everywhere, as they are
    beyond `num_labels`, and its log probability is -inf.
    """

    starts: Int[Array, "batch label_pos"]
    stops: Int[Array, "batch label_pos"]
    scores: Float[Array, "batch label_pos"]
    log_probs: Float[Array, " batch"]
    feasible: Bool[Array, " batch"]


@functools.partial(jax.jit, static_argnames="blank")
def align(
    log_probs: Float[Array, "batch frame label"],
    num_frames: Int[Array, " batch"],
    labels: Int[Array, "batch label_pos"],
    num_labels: Int[Array, " batch"],
    blank: int = BLANK,
) -> Alignment:
    """The likeliest of all paths that spell the labels (Viterbi on the graph of Graves et al. 2006, section 4.1).

    Nothing is pruned. A recording of an hour fits: with T frames and N labels the search takes about 8 sqrt(T) N bytes
    a row beside its input, for it goes over the frames twice. Frames beyond `num_frames` and labels beyond
    `num_labels` count nowhere; a row without a frame is infeasible, as it is to `ctc_loss`. `log_probs` are
    computed with in float32; -inf forbids a label at a frame. Labels must be ids other than `blank`.
    """
    aligned = functools.partial(_align_row, blank=blank)
    return jax.vmap(aligned)(log_probs.astype(jnp.float32), num_frames, labels, num_labels)


def frames_needed(labels: Int[np.ndarray, " label"]) -> int:
    """The fewest frames that spell the labels: one each and a blank between two that are equal; at least 1."""
    return max(len(labels) + int(np.sum(labels[1:] == labels[:-1])), 1)


def check_fits(labels: Int[np.ndarray, " label"], num_frames: int, seconds_per_frame: float) -> None:
    """Raises `AlignmentError` if a recording of `num_frames` is too short for any path to spell the labels."""
    needed = frames_needed(labels)
    if num_frames < needed:
        raise AlignmentError(
            f"a transcript of {len(labels)} labels needs {needed} frames ({needed * seconds_per_frame:.2f} s); the "
            f"recording has {num_frames} ({num_frames * seconds_per_frame:.2f} s); is it the right transcript?"
        )


def _align_row(
    log_probs: Float[Array, "frame label"],
    num_frames: Int[Array, ""],
    labels: Int[Array, " label_pos"],
    num_labels: Int[Array, ""],
    blank: int,
) -> Alignment:
    num_states = 2 * labels.size + 1
    # Even states are blanks, state 2i + 1 is label i.
    symbols = jnp.full(num_states, blank).at[1::2].set(labels)
    may_skip = jnp.zeros(num_states, bool).at[3::2].set(labels[1:] != labels[:-1])
    # Nothing may be in a state beyond the last label, for which an impossible symbol is added to the frames.
    within = jnp.arange(num_states) <= 2 * num_labels
    valid = jnp.arange(log_probs.shape[0]) < num_frames
    extended = jnp.pad(log_probs, ((0, 0), (0, 1)), constant_values=-jnp.inf)
    states, exists = _best_path(extended, valid, jnp.where(within, symbols, log_probs.shape[1]), may_skip, num_labels)

    emitted = jnp.take_along_axis(log_probs, symbols[states][:, None], axis=1)[:, 0]
    log_prob = jnp.sum(jnp.where(valid, emitted, 0))
    feasible = (num_frames > 0) & exists

    counts = feasible & (jnp.arange(labels.size) < num_labels)
    # A path never goes back, so the frames it spends in each state say when it leaves it.
    visited = jnp.where(valid, states, num_states)
    left = jnp.cumsum(jnp.bincount(visited, length=num_states))
    starts, stops = left[:-1:2], left[1::2]
    sums = jnp.bincount(visited, weights=emitted, length=num_states)[1::2]
    return Alignment(
        starts=jnp.where(counts, starts, 0),
        stops=jnp.where(counts, stops, 0),
        scores=jnp.where(counts, sums / (stops - starts), 0),
        log_probs=jnp.where(feasible, log_prob, -jnp.inf),
        feasible=feasible,
    )


def _best_path(
    log_probs: Float[Array, "frame symbol"],
    valid: Bool[Array, " frame"],
    symbols: Int[Array, " state"],
    may_skip: Bool[Array, " state"],
    num_labels: Int[Array, ""],
) -> tuple[Int[Array, " frame"], Bool[Array, ""]]:
    """The state at each frame, and whether there is a path at all.

    Goes in blocks of frames, and finds the way back through a block by entering it once more. Only the scores at the
    entrance of each block are kept, 4 bytes a state, and the moves within one block, 1 byte a state and frame; blocks
    of 2 sqrt(frames) make the sum of both the least.
    """
    num_frames = log_probs.shape[0]
    block = max(2 * math.isqrt(num_frames), 1)
    num_blocks = -(-num_frames // block)
    extra = num_blocks * block - num_frames
    blocks = (
        jnp.pad(log_probs, ((0, extra), (0, 0))).reshape(num_blocks, block, -1),
        jnp.pad(valid, (0, extra)).reshape(num_blocks, block),
    )

    def step(scores, frame):
        emissions, is_valid = frame
        stay, advance, skip = (_shifted(scores, places) for places in (0, 1, 2))
        best = jnp.maximum(jnp.maximum(stay, advance), jnp.where(may_skip, skip, -jnp.inf))
        moves = jnp.where(best == stay, 0, jnp.where(best == advance, 1, 2))
        entered = best + emissions[symbols]
        # Scores relative to the best one keep their digits however long the recording is.
        entered -= jnp.maximum(jnp.max(entered), jnp.finfo(jnp.float32).min)
        return jnp.where(is_valid, entered, scores), jnp.where(is_valid, moves, 0).astype(jnp.uint8)

    def forward(scores, frames):
        return jax.lax.scan(lambda scores, frame: (step(scores, frame)[0], None), scores, frames)[0], scores

    def backward(state, entrance_and_frames):
        _, moves = jax.lax.scan(step, *entrance_and_frames)
        return jax.lax.scan(lambda state, moves: (state - moves[state], state), state, moves, reverse=True)

    # A path starts as if a blank came before its first frame.
    start = jnp.where(jnp.arange(symbols.size) == 0, 0.0, -jnp.inf)
    scores, entrances = jax.lax.scan(forward, start, blocks)
    last_blank = 2 * num_labels
    last_label = jnp.maximum(last_blank - 1, 0)
    end = jnp.where(scores[last_label] > scores[last_blank], last_label, last_blank)
    _, states = jax.lax.scan(backward, end, (entrances, blocks), reverse=True)
    return states.reshape(-1)[:num_frames], scores[end] > -jnp.inf


def _shifted(scores: Float[Array, " state"], places: int) -> Float[Array, " state"]:
    return jnp.pad(scores, (places, 0), constant_values=-jnp.inf)[: scores.size]
