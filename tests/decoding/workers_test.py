import dataclasses
import itertools

import numpy as np
import pytest
from exhaustive import ARPA, LABELS, random_log_probs

from w2v2_jax.decoding.beam import BeamSearch
from w2v2_jax.decoding.hypotheses import Weights
from w2v2_jax.decoding.language_models import LanguageModelError, NGramFile
from w2v2_jax.decoding.lexicon import lexicon_of_words
from w2v2_jax.decoding.workers import AHEAD, Workers, decode_all

CLIPS = [random_log_probs(seed, num_frames=5 + seed % 7) for seed in range(30)]


@pytest.fixture(scope="module")
def search(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "toy.arpa"
    path.write_text(ARPA)
    return BeamSearch(LABELS, NGramFile(path), lexicon_of_words(["A", "AB", "BB"], LABELS), n_best=3)


@pytest.fixture(scope="module")
def two_workers(search):
    _ = search.loaded  # does not hinder it from going to another process
    with Workers(search, 2) as workers:
        yield workers


def test_any_number_of_workers_equals_none(search, two_workers):
    expected = [search.decode(clip) for clip in CLIPS]
    assert list(two_workers.decode(CLIPS, search.weights)) == expected
    assert list(decode_all(search, CLIPS, num_workers=1)) == expected


def test_workers_take_other_weights_each_time(search, two_workers):
    for weights in (Weights(0.0, 2.0), Weights(4.0, -3.0)):
        expected = [search.reweighted(weights).decode(clip) for clip in CLIPS[:5]]
        assert list(two_workers.decode(CLIPS[:5], weights)) == expected


def test_no_more_clips_are_taken_than_wait(search, two_workers):
    taken = []

    def endless():
        for clip in itertools.cycle(CLIPS):
            taken.append(clip)
            yield clip

    results = two_workers.decode(endless(), search.weights)
    for _ in range(20):
        next(results)
    assert len(taken) <= 20 + 2 * AHEAD
    results.close()
    assert list(two_workers.decode(CLIPS[:2], search.weights)) == [search.decode(clip) for clip in CLIPS[:2]]


def test_no_clips_have_no_results(search, two_workers):
    assert list(two_workers.decode([], search.weights)) == []


def test_an_error_of_a_search_is_raised_where_its_clip_stands(search, two_workers):
    bad = np.full_like(CLIPS[1], np.nan)
    results = two_workers.decode([CLIPS[0], bad], search.weights)
    assert next(results) == search.decode(CLIPS[0])
    with pytest.raises(ValueError, match="frame 0 are NaN"):
        next(results)


def test_a_model_that_cannot_be_loaded_is_named(search):
    broken = dataclasses.replace(search, model=NGramFile("nowhere.arpa"))
    with pytest.raises(LanguageModelError, match=r"no language model file nowhere\.arpa"):
        next(decode_all(broken, CLIPS, num_workers=1))


def test_one_worker_at_least(search):
    with pytest.raises(ValueError, match="0 workers cannot decode"):
        Workers(search, 0)
