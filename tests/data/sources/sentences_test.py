import random

import pytest

from w2v2_jax.data.sources.sentences import Sentences, share


def test_sentences_are_words_of_small_letters():
    sentences = Sentences(random.Random(0), lexicon=1.0)
    for text in (sentences.sentence() for _ in range(500)):
        assert text == " ".join(text.split())
        assert set(text) <= set("abcdefghijklmnopqrstuvwxyz ")
        assert 3 <= len(text.split()) <= 20


def test_a_vowel_takes_an():
    sentences = Sentences(random.Random(0), lexicon=1.0)
    texts = [f" {sentences.sentence()} " for _ in range(3000)]
    assert any(" an " in text for text in texts)
    assert not any(f" a {vowel}" in text for text in texts for vowel in "aeiou")


def test_there_are_far_more_sentences_than_a_corpus_needs():
    sentences = Sentences(random.Random(0), lexicon=1.0)
    assert len({sentences.sentence() for _ in range(5000)}) > 4800


def test_shares_of_the_sentences_are_equal():
    sentences = Sentences(random.Random(0), lexicon=1.0)
    shares = [share(sentences.sentence()) for _ in range(4000)]
    assert all(shares.count(number) == pytest.approx(200, abs=70) for number in range(20))


def test_a_small_lexicon_makes_sentences_of_few_words():
    sentences = Sentences(random.Random(0), lexicon=0.1)
    words = {word for _ in range(2000) for word in sentences.sentence().split()}
    assert 30 <= len(words) <= 70


@pytest.mark.parametrize("lexicon", [0.0, 1.5])
def test_a_lexicon_is_a_share(lexicon):
    with pytest.raises(ValueError, match="share of the words"):
        Sentences(random.Random(0), lexicon)
