import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from w2v2_jax.ctc import ctc_loss
from w2v2_jax.data.text import Vocabulary
from w2v2_jax.decoding.greedy import collapse, greedy, greedy_decode


def collapse_by_hand(ids):
    """(label, first frame, frame after the last) of every run that is not blank."""
    runs, position = [], 0
    for label, run in itertools.groupby(ids):
        length = len(list(run))
        runs.append((label, position, position + length))
        position += length
    return [run for run in runs if run[0] != 0]


def unpack(collapsed, row):
    n = int(collapsed.num_labels[row])
    fields = collapsed.labels, collapsed.starts, collapsed.stops
    assert not any(np.any(field[row, n:]) for field in fields)
    return list(zip(*(field[row, :n].tolist() for field in fields), strict=True))


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([0, 3, 3, 0, 3, 2], [(3, 1, 3), (3, 4, 5), (2, 5, 6)]),
        ([1, 1, 1, 1, 1, 1], [(1, 0, 6)]),
        ([0, 0, 0, 0, 0, 0], []),
        ([2, 0, 2, 0, 0, 0], [(2, 0, 1), (2, 2, 3)]),
    ],
)
def test_runs_are_merged_and_blanks_dropped(ids, expected):
    assert unpack(collapse(jnp.array([ids]), jnp.array([6])), 0) == expected


@pytest.mark.parametrize("seed", range(3))
def test_batched_collapse_equals_a_loop_over_clips(seed):
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 3, size=(8, 20))
    num_frames = rng.integers(0, 21, size=8)
    collapsed = jax.jit(collapse)(jnp.array(ids), jnp.array(num_frames))
    for row in range(8):
        assert unpack(collapsed, row) == collapse_by_hand(ids[row, : num_frames[row]].tolist())


def test_a_run_that_goes_on_into_the_padding_stops_at_the_last_frame():
    assert unpack(collapse(jnp.array([[0, 4, 4, 4, 4]]), jnp.array([3])), 0) == [(4, 1, 3)]


def test_greedy_decoding_takes_the_likeliest_label_of_each_frame():
    ids = jnp.array([[0, 1, 1, 0, 2, 2]])
    path = greedy_decode(5.0 * jax.nn.one_hot(ids, 4), jnp.array([6]))
    assert unpack(path.collapsed, 0) == [(1, 1, 3), (2, 4, 6)]
    assert path.log_probs[0] == pytest.approx(6 * np.log(np.exp(5) / (np.exp(5) + 3)), rel=1e-5)


def test_the_path_is_at_most_as_likely_as_the_labels_it_spells():
    logits = jnp.array(np.random.default_rng(0).normal(size=(4, 15, 6)).astype(np.float32))
    num_frames = jnp.array([15, 10, 5, 1])
    path = greedy_decode(logits, num_frames)
    result = jax.jit(ctc_loss)(logits, num_frames, path.collapsed.labels, path.collapsed.num_labels)
    assert np.all(result.feasible)
    assert np.all(path.log_probs <= -result.losses + 1e-5)


def test_nan_beyond_the_last_frame_does_not_leak():
    logits = jnp.array(np.random.default_rng(1).normal(size=(2, 8, 4)).astype(np.float32))
    num_frames = jnp.array([5, 0])
    dirty = jnp.where((jnp.arange(8)[None] < num_frames[:, None])[..., None], logits, jnp.nan)
    clean_path, dirty_path = (greedy_decode(x, num_frames) for x in (logits, dirty))
    jax.tree.map(np.testing.assert_array_equal, clean_path, dirty_path)
    assert (int(dirty_path.collapsed.num_labels[1]), float(dirty_path.log_probs[1])) == (0, 0.0)


def test_a_recording_decoded_on_the_host_is_that_decoded_on_the_device():
    logits = jax.random.normal(jax.random.key(0), (3, 40, 5))
    vocabulary = Vocabulary(("A", "<b>", "B", "C", "|"), specials=("<b>",), blank="<b>")
    num_frames = jnp.array([40, 7, 0])
    path = greedy_decode(logits, num_frames, blank=1)
    log_probs = np.asarray(jax.nn.log_softmax(logits))
    emissions = [each[: int(count)] for each, count in zip(log_probs, num_frames, strict=True)]
    for row, found in enumerate(greedy(emissions, vocabulary)):
        assert unpack(path.collapsed, row) == list(zip(*map(np.ndarray.tolist, found[:3]), strict=True))
        assert found.score == pytest.approx(float(path.log_probs[row]), rel=1e-5)
