import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chisquare

from w2v2_jax.batches import example_keys
from w2v2_jax.masking import (
    TIME_MASK,
    MaskSpans,
    gather_indices,
    sample_distractors,
    sample_mask_spans,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")

FRAMES = 781  # of a crop of 250,000 samples


def sample(seed, num_valid, size, spans=TIME_MASK):
    num_valid = jnp.array(num_valid)
    keys = example_keys(jax.random.key(seed), len(num_valid))
    return np.array(jax.jit(sample_mask_spans, static_argnums=(2, 3))(keys, num_valid, size, spans))


@functools.cache
def paper_masks():
    return sample(0, [FRAMES] * 2000, FRAMES)


def run_lengths(row):
    """Lengths of the runs of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], row.astype(int), [0]])))
    return edges[1::2] - edges[::2]


def test_paper_masks_49_percent_of_a_crop():
    """Appendix A; the share's standard error over 2000 clips is 0.03 %."""
    assert paper_masks().mean() == pytest.approx(0.491, abs=0.002)


def test_paper_masks_spans_of_14_7_frames_with_median_10():
    """Appendix A: 14.7 time steps (299 ms) on average, 10 at the median, about 100 at most."""
    lengths = np.concatenate([run_lengths(row) for row in paper_masks()])
    assert lengths.mean() == pytest.approx(14.7, abs=0.1)
    assert np.median(lengths) == 10
    assert 60 < lengths.max() < 160


def test_every_span_is_whole():
    assert min(run_lengths(row).min() for row in paper_masks()) == TIME_MASK.length


def test_number_of_spans_is_rounded_at_random_to_the_expected_one():
    """Spans of one frame, of which each is one start: 0.65 * 781 = 507.65 of them."""
    counts = sample(1, [FRAMES] * 400, FRAMES, MaskSpans(prob=0.65, length=1, min_spans=0)).sum(axis=1)
    assert set(counts) == {507, 508}
    assert counts.mean() == pytest.approx(507.65, abs=0.1)


def test_starts_are_uniform_over_the_clip():
    """A frame in the middle is hidden as often as any other; only the first and last nine are hidden less."""
    inner = paper_masks()[:, 10:-10].mean(axis=0)
    assert np.abs(inner - inner.mean()).max() < 5 * math.sqrt(0.25 / 2000)


def test_padding_is_never_masked():
    num_valid = np.array([0, 1, 5, 30, 100, 199, 200] * 20)
    masked = sample(2, num_valid, 200)
    assert not masked[np.arange(200) >= num_valid[:, None]].any()
    assert masked[num_valid >= 30].any(axis=1).all()


def test_last_valid_frame_is_never_masked_in_a_clip_long_enough():
    """As in fairseq, whose starts are drawn below size - length."""
    num_valid = np.array([25, 60, 200] * 100)
    masked = sample(3, num_valid, 200)
    assert not masked[np.arange(300), num_valid - 1].any()
    assert masked[np.arange(300), num_valid - 2].any()


def test_a_clip_has_at_least_two_spans():
    """30 frames expect 1.95 spans; with two starts, distinct, at least 11 frames are hidden."""
    masked = sample(4, [30] * 200, 30)
    assert masked.sum(axis=1).min() >= 11


@pytest.mark.parametrize("size", [1, 2, 3, 11, 12, 49, 781])
def test_static_bound_is_never_exceeded(size):
    masked = sample(5, np.arange(1, size + 1) if size < 100 else [size] * 200, size)
    assert masked.sum(axis=1).max() <= TIME_MASK.max_masked(size)


def test_static_bound_is_a_tight_one():
    """51 spans of 10 if none overlap: of 781 frames no more than 510 can be hidden."""
    assert TIME_MASK.max_masked(FRAMES) == 510
    assert MaskSpans(prob=1.0, length=10, min_spans=0).max_masked(100) == 100


def test_a_probability_of_zero_masks_nothing():
    assert not sample(6, [100] * 8, 100, MaskSpans(prob=0.0, length=1, min_spans=0)).any()


def test_a_probability_too_small_for_one_span_masks_some_rows_only():
    spans = MaskSpans(prob=0.05, length=64, min_spans=0)  # 768 channels: 0.6 spans a row
    masked = sample(7, [768] * 400, 768, spans)
    assert masked.any(axis=1).mean() == pytest.approx(0.6, abs=0.1)


def test_masks_depend_on_the_row_and_not_on_the_rest_of_the_batch():
    alone, together = sample(8, [100], 100), sample(8, [100, 60, 30], 100)
    np.testing.assert_array_equal(alone[0], together[0])
    assert (sample(9, [100], 100) != alone).any()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [((1.5, 10, 0), "1.5 is not a share"), ((-0.1, 10, 0), "-0.1 is not a share"), ((0.5, 0, 0), "must be >= 1")],
)
def test_impossible_spans_are_refused(arguments, complaint):
    with pytest.raises(ValueError, match=complaint):
        MaskSpans(*arguments)


def test_gather_indices_lists_masked_frames_in_order_with_a_weight():
    masked = jnp.array([[False, True, True, False, True], [False, False, False, True, False]])
    indices, weight = gather_indices(masked, 4)
    np.testing.assert_array_equal(weight, [[1, 1, 1, 0], [1, 0, 0, 0]])
    assert indices[0, :3].tolist() == [1, 2, 4]
    assert indices[1, 0] == 3


@functools.cache
def distractors():
    """Of a clip with 7 masked frames among 10 slots and of one with 10, many draws each."""
    keys = example_keys(jax.random.key(0), 2)
    return np.array(sample_distractors(keys, jnp.array([7, 10]), 10, 6000))


def test_a_masked_frame_is_never_its_own_distractor():
    assert (distractors()[0, :7] != np.arange(7)[:, None]).all()
    assert (distractors()[1] != np.arange(10)[:, None]).all()


def test_distractors_are_masked_frames_of_the_same_clip():
    assert distractors()[0, :7].max() == 6
    assert distractors()[1].max() == 9
    assert distractors().min() == 0


@pytest.mark.parametrize(("clip", "count"), [(0, 7), (1, 10)])
def test_distractors_are_uniform_over_the_other_masked_frames(clip, count):
    """Chi-square for each frame; a sampler off by one (0.7 % of draws on the frame itself) fails by far."""
    for rank in range(count):
        drawn = np.bincount(distractors()[clip, rank], minlength=count)
        assert chisquare(np.delete(drawn, rank)).pvalue > 1e-4


def test_frames_draw_their_distractors_independently():
    """Two frames agree on a draw as often as chance has it."""
    agreement = (distractors()[1, 0] == distractors()[1, 1]).mean()
    assert agreement == pytest.approx(8 / 81, abs=0.02)


@pytest.mark.parametrize("count", [0, 1])
def test_distractors_of_a_clip_without_others_stay_within_its_slots(count):
    drawn = np.array(sample_distractors(example_keys(jax.random.key(0), 1), jnp.array([count]), 4, 50))
    assert 0 <= drawn.min() <= drawn.max() < 4
