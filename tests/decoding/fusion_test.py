import math
import zlib

import numpy as np
import pytest
from exhaustive import ARPA, LABELS, best_hypotheses, random_log_probs
from flashlight.lib.text.decoder import LM, LMState

from w2v2_jax.decoding.beam import BeamSearch
from w2v2_jax.decoding.fusion import InNats, decode_fused
from w2v2_jax.decoding.hypotheses import Weights
from w2v2_jax.decoding.language_models import NGramFile, NoModel
from w2v2_jax.decoding.lexicon import lexicon_of_words

WORDS = ("A", "AB", "BB", "BA")
WEIGHTS = Weights(0.8, -0.3)
EVERYTHING = {"beam": 2000, "beam_threshold": 1e6, "n_best": 2000}


def log_prob(history, word):
    """A model with a memory without end: any word, given all before it."""
    chances = [1 + zlib.crc32(" ".join((*history, each)).encode()) % 100 for each in (*WORDS, "</s>")]
    return math.log(chances[(*WORDS, "</s>").index(word)] / sum(chances))


class Asked:
    """The model, and how much it was asked at a time."""

    def __init__(self):
        self.calls = []

    def __call__(self, queries):
        self.calls.append(len(queries))
        return np.array([log_prob(*query) for query in queries])


def sentence_log_prob(words):
    return sum(log_prob(words[:place], word) for place, word in enumerate((*words, "</s>")))


class OneAtATime(LM):
    """The model as flashlight would have it."""

    def __init__(self):
        super().__init__()
        self.histories = {}

    def start(self, start_with_nothing):
        state = LMState()
        self.histories[state] = ()
        return state

    def score(self, state, word):
        child = state.child(word)
        self.histories[child] = (*self.histories[state], WORDS[word])
        return child, log_prob(self.histories[state], WORDS[word])

    def finish(self, state):
        return state, log_prob(self.histories[state], "</s>")


@pytest.fixture
def guess(tmp_path):
    path = tmp_path / "toy.arpa"
    path.write_text(ARPA)
    return InNats(NGramFile(path))


def one_at_a_time(search, log_probs):
    search = search.reweighted(search.weights)
    vars(search)["loaded"] = search.loaded._replace(model=OneAtATime())
    return search.decode(log_probs)


@pytest.mark.parametrize("beam", [1, 3, 10, 200])
def test_fusion_in_batches_is_fusion_one_at_a_time(guess, beam):
    clips = [random_log_probs(seed, num_frames=5 + 4 * seed) for seed in range(6)]
    lexicon = lexicon_of_words(WORDS, LABELS)
    search = BeamSearch(LABELS, guess, lexicon, weights=WEIGHTS, beam=beam, beam_threshold=12.0, n_best=min(beam, 5))
    expected = [one_at_a_time(search, log_probs) for log_probs in clips]
    model = Asked()
    assert decode_fused(search, clips, model) == expected
    assert len(model.calls) < sum(model.calls) / 10 or beam == 1


@pytest.mark.parametrize("seed", range(3))
def test_fusion_finds_what_exhaustive_search_finds(guess, seed):
    log_probs = random_log_probs(seed)
    search = BeamSearch(LABELS, guess, lexicon_of_words(WORDS, LABELS), weights=WEIGHTS, **EVERYTHING)
    [found] = decode_fused(search, [log_probs], Asked())
    expected = best_hypotheses(log_probs, WORDS, WEIGHTS, language=sentence_log_prob)
    assert [each.words for each in found] == [each.words for each in expected]
    np.testing.assert_allclose([each.language for each in found], [each.language for each in expected], atol=1e-5)


def test_nothing_is_asked_twice(guess):
    asked = []

    def model(queries):
        asked.extend(queries)
        return np.array([log_prob(*query) for query in queries])

    search = BeamSearch(LABELS, guess, lexicon_of_words(WORDS, LABELS), weights=WEIGHTS, beam=20)
    decode_fused(search, [random_log_probs(seed, 12) for seed in (0, 1, 0)], model)
    assert len(asked) == len(set(asked)) > 10


def test_any_guess_will_do(guess):
    clips = [random_log_probs(seed, 12) for seed in range(3)]
    lexicon = lexicon_of_words(WORDS, LABELS)
    found = [
        decode_fused(BeamSearch(LABELS, model, lexicon, weights=WEIGHTS, beam=500, beam_threshold=1e6), clips, Asked())
        for model in (guess, NoModel())
    ]
    assert [each[0].words for each in found[0]] == [each[0].words for each in found[1]]


def test_nothing_to_decode_asks_nothing(guess):
    model = Asked()
    search = BeamSearch(LABELS, guess, lexicon_of_words(WORDS, LABELS))
    assert decode_fused(search, [], model) == []
    assert not model.calls


def test_natural_logs_of_an_n_gram_model_are_its_log10_times_2_3026(guess, tmp_path):
    natural, decimal = (model.load(WORDS) for model in (guess, NGramFile(tmp_path / "toy.arpa")))
    for method in ("score", "finish"):
        arguments = (0,) if method == "score" else ()
        scores = [getattr(model, method)(model.start(False), *arguments)[1] for model in (natural, decimal)]
        assert scores[0] == pytest.approx(2.302585 * scores[1], rel=1e-5)
