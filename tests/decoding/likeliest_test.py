import itertools

import numpy as np
import pytest

from w2v2_jax.data.text import Vocabulary
from w2v2_jax.decoding.likeliest import Likeliest

VOCABULARY = Vocabulary(("<b>", "A", "<unk>", "|"), specials=("<b>", "<unk>"), blank="<b>")


def random_log_probs(num_frames, seed):
    logits = np.random.default_rng(seed).normal(scale=2.0, size=(num_frames, len(VOCABULARY)))
    return (logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))).astype(np.float32)


def by_enumeration(log_probs):
    """The probability of each text by all of its paths; none writes an <unk>."""
    totals = {}
    for path in itertools.product((0, 1, 3), repeat=len(log_probs)):
        labels = [label for label, _ in itertools.groupby(path) if label != 0]
        text = VOCABULARY.decode(labels)
        totals[text] = totals.get(text, 0.0) + np.exp(log_probs[np.arange(len(path)), path].sum(dtype=np.float64))
    return dict(sorted(totals.items(), key=lambda each: -each[1]))


@pytest.mark.parametrize("seed", range(3))
def test_texts_have_the_probability_of_all_their_paths_the_likeliest_first(seed):
    """`A`, `A|` and `|A||` are one text."""
    log_probs = random_log_probs(6, seed)
    [found] = Likeliest(beam=400, n_best=5)([log_probs], VOCABULARY)
    expected = [*by_enumeration(log_probs).items()][:5]
    assert [each.text for each in found.candidates] == [text for text, _ in expected]
    np.testing.assert_allclose(np.exp([each.score for each in found.candidates]), [p for _, p in expected], rtol=1e-4)
    assert VOCABULARY.decode(found.labels) == expected[0][0]
    assert found.score == found.candidates[0].score


def test_recordings_of_all_lengths_are_decoded_together_as_each_alone_and_in_their_order():
    lengths = [3, 70, 5, 140, 1, 70, 64] * 10
    recordings = [random_log_probs(length, seed) for seed, length in enumerate(lengths)]
    decode = Likeliest(beam=8, n_best=2)
    together = list(decode(iter(recordings), VOCABULARY))
    assert len(together) == len(recordings)
    for place in (0, 1, 3, 4, 69):
        [alone] = decode([recordings[place]], VOCABULARY)
        assert alone.labels.tolist() == together[place].labels.tolist()
        assert alone.starts.tolist() == together[place].starts.tolist()
        assert [each.text for each in alone.candidates] == [each.text for each in together[place].candidates]
        assert alone.score == pytest.approx(together[place].score, rel=1e-5)


def test_a_beam_is_no_narrower_than_what_is_asked_of_it():
    with pytest.raises(ValueError, match="a beam of 3 cannot give the 4 best"):
        Likeliest(beam=3, n_best=4)
