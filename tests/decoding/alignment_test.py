import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from w2v2_jax.ctc import ctc_loss
from w2v2_jax.decoding.alignment import Alignment, AlignmentError, align, check_fits, frames_needed

pytestmark = pytest.mark.usefixtures("quick_compilation")


def random_log_probs(rng, *shape):
    return np.array(jax.nn.log_softmax(3 * rng.normal(size=shape).astype(np.float32)))


def together(log_probs, num_frames, transcripts, blank=0):
    """The alignment of a batch as NumPy arrays."""
    labels = np.zeros((len(transcripts), max(map(len, transcripts))), np.int32)
    for row, transcript in enumerate(transcripts):
        labels[row, : len(transcript)] = transcript
    num_labels = np.array([len(transcript) for transcript in transcripts])
    found = align(jnp.array(log_probs), jnp.array(num_frames), jnp.array(labels), jnp.array(num_labels), blank=blank)
    return Alignment(*map(np.asarray, found))


def one(log_probs, labels, blank=0):
    """The alignment of a single clip without padding."""
    return Alignment(*(leaf[0] for leaf in together(log_probs[None], [len(log_probs)], [labels], blank)))


def spans_of(found, row, num_labels):
    """(start, stop) of the labels of a row."""
    return list(zip(found.starts[row, :num_labels].tolist(), found.stops[row, :num_labels].tolist(), strict=True))


def spelled(path, blank):
    return [symbol for symbol, _ in itertools.groupby(path) if symbol != blank]


def spans(path, blank):
    """(start, stop) of each run of a path that is not a blank."""
    ends = itertools.accumulate(len(list(run)) for _, run in itertools.groupby(path))
    starts_and_ends = itertools.pairwise([0, *ends])
    return [span for span in starts_and_ends if path[span[0]] != blank]


def best_by_enumeration(log_probs, labels, blank):
    """The likeliest of all symbol strings that collapse to `labels`, and its log probability."""
    frames, symbols = log_probs.shape
    paths = (path for path in itertools.product(range(symbols), repeat=frames) if spelled(path, blank) == list(labels))
    scored = ((float(np.float64(log_probs)[np.arange(frames), path].sum()), path) for path in paths)
    return max(scored, default=(-np.inf, None))


def viterbi(log_probs, labels, dtype=np.float64):
    """The states of the best path by the whole table of scores at once."""
    states = np.zeros(2 * len(labels) + 1, np.int64)
    states[1::2] = labels
    may_skip = np.zeros(len(states), bool)
    may_skip[3::2] = states[3::2] != states[1:-2:2]
    table = np.full((len(log_probs) + 1, len(states)), -np.inf, dtype)
    table[0, 0] = 0
    ways = np.zeros((3, *table.shape), dtype)
    for frame, emissions in enumerate(log_probs):
        stay = table[frame]
        advance = np.concatenate([[-np.inf], stay[:-1]])
        skip = np.where(may_skip, np.concatenate([[-np.inf] * 2, stay])[: len(states)], -np.inf)
        ways[:, frame + 1] = stay, advance, skip
        table[frame + 1] = ways[:, frame + 1].max(0) + emissions[states].astype(dtype)
        table[frame + 1] -= table[frame + 1].max()
    state = len(states) - 1 - int(len(labels) > 0 and table[-1, -2] > table[-1, -1])
    path = []
    for frame in range(len(log_probs), 0, -1):
        path.append(state)
        state -= int(np.argmax(ways[:, frame, state]))
    return np.array(path[::-1])


def log_prob_of(states, log_probs, labels):
    symbols = np.zeros(2 * len(labels) + 1, np.int64)
    symbols[1::2] = labels
    return np.float64(log_probs)[np.arange(len(states)), symbols[states]].sum()


@pytest.mark.parametrize("blank", [0, 2])
def test_path_is_the_likeliest_of_all_that_spell_the_labels(blank):
    transcripts = [[], [1], [1, 3], [1, 1], [3, 3, 1], [1, 3, 1, 3], [3, 3, 3]] * 3
    log_probs = random_log_probs(np.random.default_rng(blank), len(transcripts), 6, 4)
    found = together(log_probs, [6] * len(transcripts), transcripts, blank)
    assert np.all(found.feasible)
    for row, labels in enumerate(transcripts):
        best, path = best_by_enumeration(log_probs[row], labels, blank)
        expected = spans(path, blank)
        means = [log_probs[row, slice(*span), label].mean() for label, span in zip(labels, expected, strict=True)]
        assert found.log_probs[row] == pytest.approx(best, abs=1e-5)
        assert spans_of(found, row, len(labels)) == expected
        np.testing.assert_allclose(found.scores[row, : len(labels)], means, rtol=1e-5)


def test_a_row_is_feasible_from_as_many_frames_as_its_labels_need():
    transcripts = [[1, 2, 3, 1], [1, 1, 1], [2, 2, 1], [3]]
    log_probs = random_log_probs(np.random.default_rng(0), 4, 6, 4)
    needed = [frames_needed(np.array(labels)) for labels in transcripts]
    assert needed == [4, 5, 4, 1]
    too_few = [count - 1 for count in needed]
    assert np.all(together(log_probs, needed, transcripts).feasible)
    assert not np.any(together(log_probs, too_few, transcripts).feasible)


def test_a_transcript_without_labels_is_all_blanks():
    log_probs = random_log_probs(np.random.default_rng(0), 5, 4)
    found = one(log_probs, [])
    assert found.feasible
    assert found.log_probs == pytest.approx(log_probs[:, 0].sum())
    assert found.starts.shape == found.stops.shape == found.scores.shape == (0,)


@pytest.mark.parametrize("num_frames", [1, 2, 5, 9, 64, 65, 400])
def test_blocks_of_frames_make_no_difference(num_frames):
    """The reference keeps the whole table, and rounds as we do."""
    rng = np.random.default_rng(num_frames)
    labels = rng.integers(1, 4, size=max(num_frames // 3, 1))
    log_probs = random_log_probs(rng, num_frames, 4)
    states = viterbi(log_probs, labels, np.float32)
    found = one(log_probs, labels)
    positions = [np.flatnonzero(states == 2 * place + 1) for place in range(len(labels))]
    assert found.starts.tolist() == [frames[0] for frames in positions]
    assert found.stops.tolist() == [frames[-1] + 1 for frames in positions]


def test_path_through_a_long_recording_is_as_likely_as_in_double_precision():
    """Log probabilities of six thousand frames add up to numbers of which float32 keeps two decimals."""
    rng = np.random.default_rng(0)
    labels = rng.integers(1, 32, size=900)
    log_probs = random_log_probs(rng, 6000, 32) - np.float32(20)
    found = one(log_probs, labels)
    states = np.searchsorted(np.stack([found.starts, found.stops], 1).reshape(-1), np.arange(6000), side="right")
    best = log_prob_of(viterbi(log_probs, labels), log_probs, labels)
    assert log_prob_of(states, log_probs, labels) == pytest.approx(best, abs=2e-3)
    assert found.log_probs == pytest.approx(best, rel=1e-6)


def test_the_best_path_is_at_most_as_likely_as_all_together():
    rng = np.random.default_rng(1)
    log_probs, labels = random_log_probs(rng, 4, 40, 6), rng.integers(1, 6, size=(4, 12))
    batch = jnp.array(log_probs), jnp.array([40, 30, 20, 40]), jnp.array(labels), jnp.array([12, 7, 0, 1])
    assert np.all(align(*batch).log_probs <= -jax.jit(ctc_loss)(*batch).losses + 1e-4)


def test_labels_of_a_certain_path_are_found_where_they_are():
    path = [0, 3, 3, 0, 3, 2, 2, 2, 0]
    found = together(np.log(0.97 * np.eye(4, dtype=np.float32)[path] + 0.01)[None], [9], [[3, 3, 2]])
    assert spans_of(found, 0, 3) == [(1, 3), (4, 5), (5, 8)]
    np.testing.assert_allclose(np.exp(found.scores), 0.98, rtol=1e-5)


def test_padding_does_not_leak():
    rng = np.random.default_rng(2)
    frames, positions = [30, 17, 9], [8, 5, 0]
    # The junk 4 is what all frames say, so that a path through it would be the likeliest by far.
    logits = rng.normal(size=(3, 30, 5)).astype(np.float32) + np.float32([0, 0, 0, 0, 1e6])
    log_probs, labels = np.array(jax.nn.log_softmax(logits)), rng.integers(1, 4, size=(3, 8))
    for junk in (-7, 0, 1, 4, 99):
        padded = np.full((3, 43, 5), np.nan, np.float32)
        rows = np.full((3, 11), junk, np.int32)
        for row, (frame, position) in enumerate(zip(frames, positions, strict=True)):
            padded[row, :frame] = log_probs[row, :frame]
            rows[row, :position] = labels[row, :position]
        found = align(jnp.array(padded), jnp.array(frames), jnp.array(rows), jnp.array(positions))
        for row, (frame, position) in enumerate(zip(frames, positions, strict=True)):
            alone = one(log_probs[row, :frame], labels[row, :position])
            assert np.asarray(found.log_probs)[row] == pytest.approx(alone.log_probs, rel=1e-6)
            for leaf, expected in zip(found[:3], alone[:3], strict=True):
                np.testing.assert_array_equal(leaf[row, :position], expected)
                assert not np.any(leaf[row, position:])


def test_rows_without_a_path_are_zero_and_leave_the_others_alone():
    log_probs = random_log_probs(np.random.default_rng(3), 4, 6, 4)
    log_probs[2, :, 1] = -np.inf
    found = together(log_probs, [6, 4, 6, 0], [[1, 2, 3], [1, 1, 1], [1, 2, 3], []])
    assert found.feasible.tolist() == [True, False, False, False]
    assert found.log_probs[1:].tolist() == [-np.inf] * 3
    assert not any(np.any(leaf[1:]) for leaf in found[:3])
    np.testing.assert_array_equal(found.starts[0], one(log_probs[0], [1, 2, 3]).starts)


def test_a_forbidden_frame_is_gone_round():
    log_probs = np.log(np.full((4, 3), 1 / 3, np.float32))
    log_probs[:3, 2] = -np.inf
    found = one(log_probs, [1, 2])
    assert (found.starts[1], found.stops[1]) == (3, 4)


def test_bfloat16_is_aligned_in_float32():
    log_probs = jnp.array(random_log_probs(np.random.default_rng(4), 12, 5), jnp.bfloat16)
    whole = one(log_probs.astype(jnp.float32), [1, 2, 2])
    jax.tree.map(np.testing.assert_array_equal, one(log_probs, [1, 2, 2]), whole)


@pytest.mark.parametrize(("frames", "positions"), [(100, 40), (6400, 300)])
def test_memory_grows_with_the_square_root_of_the_frames(frames, positions):
    shapes = ((1, frames, 8), jnp.float32), ((1,), jnp.int32), ((1, positions), jnp.int32), ((1,), jnp.int32)
    program = align.lower(*(jax.ShapeDtypeStruct(*each) for each in shapes)).compile()
    taken = program.memory_analysis().temp_size_in_bytes
    inputs_and_path = frames * (4 * (8 + 1) + 4 * 4)
    assert taken < inputs_and_path + 2 * (8 * np.sqrt(frames) * positions) + 64 * positions


def test_a_transcript_that_is_too_long_for_its_recording_is_refused_in_a_line():
    check_fits(np.array([1, 1, 2]), 4, 0.02)
    with pytest.raises(AlignmentError, match=r"3 labels needs 4 frames \(0.08 s\).*has 3 \(0.06 s\)"):
        check_fits(np.array([1, 1, 2]), 3, 0.02)
    with pytest.raises(AlignmentError, match="needs 1 frames"):
        check_fits(np.array([], np.int32), 0, 0.02)
