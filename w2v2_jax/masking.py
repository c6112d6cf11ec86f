"""Which frames are hidden and which frames serve as distractors: sampled on the device, with static shapes.

Each row of a batch has its own key, so what a clip gets depends on (seed, step, row) and never on how many devices
or hosts share the batch.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key


@dataclasses.dataclass(frozen=True)
class MaskSpans:
    """How spans are drawn along an axis (time or channels): about `prob * size / length` spans of `length` each.

    `prob` is fairseq's `mask_prob`: the share of positions that spans would cover if they never overlapped. The
    paper's p, the probability that a position starts a span, is `prob / length` (p = 0.065 is 0.65 with length 10).
    """

    prob: float
    length: int
    min_spans: int

    def __post_init__(self):
        if not 0 <= self.prob <= 1:
            raise ValueError(f"prob={self.prob} is not a share; give a number from 0 to 1")
        if self.length < 1 or self.min_spans < 0:
            raise ValueError(f"spans of length {self.length}, at least {self.min_spans}: length must be >= 1, min >= 0")

    def max_masked(self, size: int) -> int:
        """The most positions that can be masked out of `size`: a static bound, reached if no spans overlap."""
        return min(size, max(self.min_spans, int(self.prob * size / self.length) + 1) * self.length)


TIME_MASK = MaskSpans(prob=0.65, length=10, min_spans=2)
"""Section 4.2: p = 0.065, M = 10; about 49 % of the frames of a 15 s clip."""


def sample_mask_spans(
    keys: Key[Array, " batch"], num_valid: Int[Array, " batch"], size: int, spans: MaskSpans
) -> Bool[Array, "batch size"]:
    """Masks in which True positions are hidden (section 3.1 and 4.2; appendix A has the statistics).

    A row of n valid positions gets `max(min_spans, floor(prob * n / length + u))` spans, u uniform in [0, 1), whose
    distinct starts are uniform over the n - length first positions; spans may overlap and end at n at the latest.

    As in fairseq, the last valid position is never masked where the clip is long enough. Unlike fairseq, rows are
    not brought to an equal number of masked frames by un-hiding frames at random, which breaks spans apart: every
    masked frame stays a target and the loss is a mean over all of them. A probability too small for one span masks
    nothing, where fairseq raises. A row whose valid positions are fewer than the spans hides what there is.
    """
    return jax.vmap(lambda key, n: _mask_row(key, n, size, spans))(keys, num_valid)


def _mask_row(key: Key[Array, ""], num_valid: Int[Array, ""], size: int, spans: MaskSpans) -> Bool[Array, " size"]:
    rounding_key, start_key = jax.random.split(key)
    expected = spans.prob * num_valid / spans.length
    num_spans = jnp.maximum(spans.min_spans, jnp.floor(expected + jax.random.uniform(rounding_key)).astype(jnp.int32))
    num_starts = jnp.maximum(num_valid - spans.length, jnp.minimum(num_spans + 1, num_valid))
    # Distinct starts: the positions whose uniforms rank lowest among the allowed ones.
    position = jnp.arange(size)
    uniforms = jnp.where(position < num_starts, jax.random.uniform(start_key, (size,)), 2.0)
    rank = jnp.argsort(jnp.argsort(uniforms))
    starts = (rank < num_spans) & (position < num_starts)
    # A position is hidden if any span started within the last `length` positions.
    started = jnp.cumsum(starts)
    ended = jnp.concatenate([jnp.zeros(spans.length, started.dtype), started])[:size]
    return (started > ended) & (position < num_valid)


def gather_indices(
    masked: Bool[Array, "batch frame"], max_masked: int
) -> tuple[Int[Array, "batch target"], Float[Array, "batch target"]]:
    """Positions of the masked frames in order, filled up to `max_masked`, and a weight of 1 where they are real."""
    indices = jnp.argsort(~masked, axis=1, stable=True)[:, :max_masked]
    weight = jnp.arange(max_masked)[None, :] < masked.sum(axis=1)[:, None]
    return indices, weight.astype(jnp.float32)


def sample_distractors(
    keys: Key[Array, " batch"], num_masked: Int[Array, " batch"], max_masked: int, num_distractors: int
) -> Int[Array, "batch target distractor"]:
    """For each masked frame, by its rank, the ranks of `num_distractors` others of the same clip (section 3.2).

    Uniform over the OTHER masked frames, with replacement: a draw among all but one, stepping over the frame itself.
    Rows with fewer than two masked frames have no distractors; what they get must carry no weight.
    """

    def row(key, count):
        draws = jax.random.randint(key, (max_masked, num_distractors), 0, jnp.maximum(count - 1, 1))
        return draws + (draws >= jnp.arange(max_masked)[:, None])

    return jnp.minimum(jax.vmap(row)(keys, num_masked), max_masked - 1)
