import collections
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from w2v2_jax.ctc import ctc_loss
from w2v2_jax.decoding.alignment import align
from w2v2_jax.decoding.prefix_beam import align_n_best, prefix_beam_search

pytestmark = pytest.mark.usefixtures("quick_compilation")


def random_log_probs(rng, *shape, scale=2):
    return np.array(jax.nn.log_softmax(scale * rng.normal(size=shape).astype(np.float32)))


def found_in(n_best, row=0):
    """The transcripts of a clip with their log probabilities, in their order."""
    labels, num_labels, log_probs = (np.asarray(leaf)[row] for leaf in n_best)
    assert not np.any(labels[np.arange(labels.shape[1]) >= num_labels[:, None]])
    assert np.all(log_probs[:-1] >= log_probs[1:])
    assert not np.any(num_labels[log_probs == -np.inf])
    places = np.flatnonzero(log_probs > -np.inf)
    transcripts = {tuple(labels[place, : num_labels[place]].tolist()): float(log_probs[place]) for place in places}
    assert len(transcripts) == len(places), "two places hold one transcript"
    return transcripts


def search(log_probs, beam, blank=0):
    return found_in(prefix_beam_search(jnp.array(log_probs)[None], jnp.array([len(log_probs)]), beam, blank=blank))


def all_transcripts(log_probs, blank):
    """The log probability of everything that any path spells, by enumeration of the paths, in float64."""
    frames, symbols = log_probs.shape
    found = collections.Counter()
    for path in itertools.product(range(symbols), repeat=frames):
        spelled = tuple(symbol for symbol, _ in itertools.groupby(path) if symbol != blank)
        found[spelled] += np.exp(np.float64(log_probs)[np.arange(frames), path].sum())
    return {spelled: np.log(prob) for spelled, prob in found.items() if prob}


def textbook_search(log_probs, beam):
    """Prefixes in a dictionary, in float64: (probability of paths that end in a blank, of those that don't)."""
    prefixes = {(): (1.0, 0.0)}
    for frame in np.exp(np.float64(log_probs)):
        grown = collections.defaultdict(lambda: np.zeros(2))
        for prefix, (blank, label) in prefixes.items():
            grown[prefix] += (blank + label) * frame[0], label * frame[prefix[-1]] if prefix else 0
            for symbol in range(1, len(frame)):
                repeats = prefix[-1:] == (symbol,)
                grown[*prefix, symbol][1] += (blank if repeats else blank + label) * frame[symbol]
        prefixes = dict(sorted(grown.items(), key=lambda item: -item[1].sum())[:beam])
    return {prefix: np.log(sum(probs)) for prefix, probs in prefixes.items()}


@pytest.mark.parametrize("blank", [0, 2])
def test_a_beam_that_holds_every_prefix_is_exact(blank):
    for seed in range(3):
        log_probs = random_log_probs(np.random.default_rng(seed), 6, 3)
        expected = all_transcripts(log_probs, blank)
        found = search(log_probs, 150, blank)
        assert found.keys() == expected.keys()
        assert list(found.values()) == pytest.approx([expected[each] for each in found], abs=1e-5)


def test_pruned_search_is_that_of_the_textbook():
    for seed in range(8):
        log_probs = random_log_probs(np.random.default_rng(seed), 40, 6)
        expected = textbook_search(log_probs, 10)
        found = search(log_probs, 10)
        assert list(found) == list(expected)
        assert list(found.values()) == pytest.approx(list(expected.values()), abs=1e-4)


def test_no_transcript_is_found_likelier_than_it_is_and_the_best_loses_little():
    """The sum over all alignments by the loss of fine-tuning."""
    rng = np.random.default_rng(0)
    path = np.where(rng.random((4, 120)) < 0.6, 0, rng.integers(1, 20, size=(4, 120)))
    logits = jnp.array(rng.normal(size=(4, 120, 20)) + 9 * np.eye(20)[path], jnp.float32)
    log_probs, num_frames = jax.nn.log_softmax(logits), jnp.full(4, 120)
    n_best = prefix_beam_search(log_probs, num_frames, 50)
    losses = jax.jit(jax.vmap(ctc_loss, in_axes=(None, None, 1, 1), out_axes=1))
    exact = -losses(log_probs, num_frames, n_best.labels, n_best.num_labels).losses
    assert np.all(n_best.log_probs <= exact + 1e-3)
    np.testing.assert_allclose(n_best.log_probs[:, 0], exact[:, 0], atol=0.02)


def test_a_transcript_of_many_paths_beats_that_of_the_likeliest_path():
    """Graves' example: the best path is all blanks with 0.36, but 'a' has 0.24 + 0.24 + 0.16 together."""
    found = search(np.log(np.array([[0.6, 0.4], [0.6, 0.4]], np.float32)), 4)
    assert list(found) == [(1,), ()]
    assert list(found.values()) == pytest.approx([np.log(0.64), np.log(0.36)])


def test_places_that_nothing_fills_are_empty():
    n_best = prefix_beam_search(jnp.zeros((1, 1, 3)), jnp.array([1]), 8)
    assert n_best.log_probs[0].tolist() == [0.0] * 3 + [-np.inf] * 5
    assert found_in(n_best).keys() == {(), (1,), (2,)}


def test_a_clip_without_a_frame_has_the_empty_transcript():
    n_best = prefix_beam_search(jnp.full((1, 4, 3), jnp.nan), jnp.array([0]), 3)
    assert found_in(n_best) == {(): 0.0}


def test_padding_does_not_leak():
    rng = np.random.default_rng(1)
    log_probs = random_log_probs(rng, 3, 20, 5)
    frames = [20, 11, 1]
    padded = np.full((3, 29, 5), np.nan, np.float32)
    for row, count in enumerate(frames):
        padded[row, :count] = log_probs[row, :count]
    together = prefix_beam_search(jnp.array(padded), jnp.array(frames), 12)
    for row, count in enumerate(frames):
        alone = search(log_probs[row, :count], 12)
        assert list(found_in(together, row)) == list(alone)
        assert list(found_in(together, row).values()) == pytest.approx(list(alone.values()), rel=1e-6)


def test_what_is_forbidden_at_a_frame_is_on_no_path():
    rng = np.random.default_rng(2)
    for _ in range(20):
        log_probs = random_log_probs(rng, 6, 3)
        log_probs[rng.random((6, 3)) < 0.4] = -np.inf
        expected = all_transcripts(log_probs, 0)
        found = search(log_probs, 150)
        assert found == pytest.approx(expected, abs=1e-5)


def test_a_frame_that_forbids_everything_leaves_nothing():
    log_probs = random_log_probs(np.random.default_rng(3), 5, 3)
    log_probs[2] = -np.inf
    assert search(log_probs, 10) == {}


def test_labels_of_every_transcript_are_found_in_time():
    log_probs = random_log_probs(np.random.default_rng(4), 2, 12, 4)
    num_frames = jnp.array([12, 7])
    n_best = prefix_beam_search(jnp.array(log_probs), num_frames, 5)
    found = align_n_best(jnp.array(log_probs), num_frames, n_best)
    for place in (0, 4):
        alone = align(jnp.array(log_probs), num_frames, n_best.labels[:, place], n_best.num_labels[:, place])
        for leaf, expected in zip(found, alone, strict=True):
            np.testing.assert_array_equal(leaf[:, place], expected)
    assert np.all(found.feasible)
    assert np.all(found.log_probs <= n_best.log_probs + 1e-5)
