"""Best-path decoding of CTC outputs, batched and with static shapes."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int

from w2v2_jax.ctc import BLANK
from w2v2_jax.data.text import Vocabulary


class Collapsed(NamedTuple):
    """What the frames spell: the first `num_labels` places of a row count, the places beyond are 0.

    Label i was emitted by the frames from `starts[i]` up to but not including `stops[i]`.
    """

    labels: Int[Array, "batch frame"]
    num_labels: Int[Array, " batch"]
    starts: Int[Array, "batch frame"]
    stops: Int[Array, "batch frame"]


def _pack_left(values: Int[Array, "batch frame"], kept: Bool[Array, "batch frame"]) -> Int[Array, "batch frame"]:
    order = jnp.argsort(~kept, axis=1, stable=True)
    return jnp.take_along_axis(jnp.where(kept, values, 0), order, axis=1)


def collapse(ids: Int[Array, "batch frame"], num_frames: Int[Array, " batch"], blank: int = BLANK) -> Collapsed:
    """Merges runs of equal ids, then drops blanks and the frames beyond `num_frames`."""
    frame = jnp.broadcast_to(jnp.arange(ids.shape[1]), ids.shape)
    spoken = (frame < num_frames[:, None]) & (ids != blank)
    changes = ids[:, 1:] != ids[:, :-1]
    starts = spoken & jnp.pad(changes, ((0, 0), (1, 0)), constant_values=True)
    stops = spoken & (jnp.pad(changes, ((0, 0), (0, 1)), constant_values=True) | (frame == num_frames[:, None] - 1))
    return Collapsed(
        labels=_pack_left(ids, starts),
        num_labels=jnp.sum(starts, axis=1),
        starts=_pack_left(frame, starts),
        stops=_pack_left(frame + 1, stops),
    )


class GreedyPath(NamedTuple):
    """The likeliest path of each clip and its log probability in nats, at most 0."""

    collapsed: Collapsed
    log_probs: Float[Array, " batch"]


def greedy_decode(
    logits: Float[Array, "batch frame label"], num_frames: Int[Array, " batch"], blank: int = BLANK
) -> GreedyPath:
    """Takes the likeliest label of every frame and collapses the path.

    The log probability is that of this one path, so it is a lower bound on that of the labels, which other paths
    spell as well. A clip without a frame has an empty path of log probability 0.
    """
    best = jnp.max(jax.nn.log_softmax(logits.astype(jnp.float32)), axis=-1)
    valid = jnp.arange(logits.shape[1])[None] < num_frames[:, None]
    log_probs = jnp.sum(jnp.where(valid, best, 0), axis=1)
    return GreedyPath(collapse(jnp.argmax(logits, axis=-1), num_frames, blank), log_probs)


class Candidate(NamedTuple):
    """What may have been said, and the decoder's score of it."""

    text: str
    score: float


class Decoded(NamedTuple):
    """The labels found in a recording: label i lasts from frame `starts[i]` up to, not including, `stops[i]`, with a
    mean log probability of `label_scores[i]` nats.

    `score` is the decoder's of the whole: of a greedy one the log probability of the path in nats. A beam search has
    `candidates`, all different, the best first, which is what the labels spell.
    """

    labels: Int[np.ndarray, " label"]
    starts: Int[np.ndarray, " label"]
    stops: Int[np.ndarray, " label"]
    label_scores: Float[np.ndarray, " label"]
    score: float
    candidates: tuple[Candidate, ...] = ()


def best_path(log_probs: Float32[np.ndarray, "frame symbol"], blank: int) -> Decoded:
    """What `greedy_decode` finds, for one recording of any length, from log probabilities in nats."""
    ids, best = log_probs.argmax(axis=1), log_probs.max(axis=1, initial=-np.inf).astype(np.float64)
    bounds = np.flatnonzero(np.diff(ids, prepend=-1, append=-1))
    starts, stops = bounds[:-1], bounds[1:]
    spoken = ids[starts] != blank
    starts, stops = starts[spoken], stops[spoken]
    sums = np.concatenate([[0.0], np.cumsum(best)])
    return Decoded(ids[starts], starts, stops, (sums[stops] - sums[starts]) / (stops - starts), sums[-1])


def greedy(emissions: Iterable[np.ndarray], vocabulary: Vocabulary) -> Iterator[Decoded]:
    """The best path of one recording after the other."""
    return (best_path(log_probs, vocabulary.blank_id) for log_probs in emissions)
