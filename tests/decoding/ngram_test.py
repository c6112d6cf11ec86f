import gzip
import itertools
from pathlib import Path

import numpy as np
import pytest

from w2v2_jax.decoding.arpa import read_arpa
from w2v2_jax.decoding.ngram import NGramError, estimate_discounts, fallback_discounts, perplexity, train_ngram

DATA = Path(__file__).parent / "data"
VERSES = (DATA / "verses.txt").read_text().splitlines()
ROSE = ["A ROSE IS A ROSE", "IS A ROSE"]


def entries(model):
    """log10 probability and back-off by the words of each n-gram."""
    words, texts, found = list(model.ids), [()], {}
    for grams in model.orders:
        texts = [texts[key // len(words)] + (words[key % len(words)],) for key in grams.keys.tolist()]
        found |= dict(zip(texts, zip(grams.log10_probs, grams.log10_backoffs, strict=True), strict=True))
    return found


def assert_equal_models(model, expected):
    model, expected = entries(model), entries(expected)
    assert model.keys() == expected.keys()
    np.testing.assert_allclose(list(model.values()), [expected[gram] for gram in model], rtol=0, atol=1e-6)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_a_trained_model_is_that_of_lmplz(order):
    assert_equal_models(train_ngram(VERSES, order), read_arpa(DATA / f"verses.{order}.arpa.gz"))


def test_a_pruned_model_is_that_of_lmplz():
    assert_equal_models(train_ngram(VERSES, 4, prune=(0, 0, 1)), read_arpa(DATA / "verses.pruned.arpa.gz"))


def test_a_model_of_fallback_discounts_is_that_of_lmplz():
    assert_equal_models(train_ngram(ROSE, 3, discounts=fallback_discounts), read_arpa(DATA / "rose.fallback.arpa.gz"))


def test_a_bigram_model_worked_by_hand():
    # Different words come before A (<s>, B), B (A) and </s> (A): adjusted counts 2, 1, 1, of which 0.5 a word and 1
    # for A go to the four words and </s>, which are equally likely: A, B, </s> and <unk>.
    model = train_ngram(["A B A", "A"], 2, discounts=fallback_discounts)
    unigram = {"<unk>": 0.5 / 4, "A": 1 / 4 + 0.5 / 4, "B": 0.5 / 4 + 0.5 / 4, "</s>": 0.5 / 4 + 0.5 / 4}
    assert {word: 10 ** entries(model)[word,][0] for word in unigram} == pytest.approx(unigram)
    # <s> is followed by A alone, twice; A by B once and by </s> twice; B by A once.
    bigram = {
        ("<s>", "A"): 1 / 2 + 1 / 2 * unigram["A"],
        ("A", "B"): 0.5 / 3 + 1.5 / 3 * unigram["B"],
        ("A", "</s>"): 1 / 3 + 1.5 / 3 * unigram["</s>"],
        ("B", "A"): 0.5 + 0.5 * unigram["A"],
    }
    assert {gram: 10 ** entries(model)[gram][0] for gram in bigram} == pytest.approx(bigram)
    backoffs = {"<s>": 1 / 2, "A": 1.5 / 3, "B": 0.5, "</s>": 1, "<unk>": 1}
    assert {word: 10 ** entries(model)[word,][1] for word in backoffs} == pytest.approx(backoffs)


@pytest.mark.parametrize("prune", [(0,), (0, 1), (0, 0, 1)])
@pytest.mark.parametrize("history", ["", "AND GOD SAID", "THE DEEP SAID LET", "UNHEARD OF"])
def test_what_may_follow_a_history_has_a_probability_of_one_altogether(prune, history):
    model = train_ngram(VERSES[:9], 4, prune, fallback_discounts)
    last = [model.log10_probs([*history.split(), word])[-2] for word in model.ids if word not in ("<s>", "</s>")]
    end = model.log10_probs(history.split())[-1]
    assert np.sum(10.0 ** np.array([*last, end])) == pytest.approx(1)


def test_probabilities_back_off_as_the_arpa_format_says():
    model = train_ngram(VERSES, 3)
    table = entries(model)

    def log10_prob(gram):
        if gram in table:
            return table[gram][0]
        return table.get(gram[:-1], (0, 0))[1] + log10_prob(gram[1:])

    words = ["AND", "GOD", "SAID", "MAN", "ATE", "THE", "GREEN", "FISH", "OF", "UNHEARD", "LIGHT"]
    known = ["<s>", *(word if word in model.ids else "<unk>" for word in words), "</s>"]
    expected = [log10_prob(tuple(known[max(0, end - 3) : end])) for end in range(2, len(known) + 1)]
    np.testing.assert_allclose(model.log10_probs(words), expected)


def test_probabilities_are_those_of_kenlm(tmp_path):
    kenlm = pytest.importorskip("kenlm")
    path = tmp_path / "verses.arpa"
    path.write_bytes(gzip.decompress((DATA / "verses.4.arpa.gz").read_bytes()))
    theirs, ours = kenlm.Model(str(path)), read_arpa(path)
    rng = np.random.default_rng(0)
    text = " ".join(VERSES).split()
    for length in (0, 1, 3, 30):
        words = [*rng.choice(text, length), "UNHEARD", *text[length : 3 * length]]
        expected = [score for score, *_ in theirs.full_scores(" ".join(words))]
        np.testing.assert_allclose(ours.log10_probs(words), expected, atol=1e-5)


def test_the_order_of_the_sentences_makes_no_difference():
    assert_equal_models(train_ngram(VERSES[::-1], 3), train_ngram(VERSES, 3))


def test_perplexity_is_that_of_the_words_and_ends_with_and_without_unknown_words():
    model = train_ngram(VERSES, 3)
    sentences = ["AND GOD SAID", "", "AN UNHEARD WORD"]
    scores = list(itertools.chain(*(model.log10_probs(sentence.split()) for sentence in sentences)))
    known = [score for place, score in enumerate(scores) if place not in (5, 6, 7)]
    result = perplexity(model, sentences)
    assert (result.num_tokens, result.num_unknown) == (9, 3)
    assert result.with_unknown == pytest.approx(10 ** -np.mean(scores))
    assert result.without_unknown == pytest.approx(10 ** -np.mean(known))


def test_a_text_predicts_itself_better_than_its_words_in_another_order():
    model = train_ngram(VERSES, 3)
    turned = [" ".join(reversed(sentence.split())) for sentence in VERSES]
    assert perplexity(model, VERSES).with_unknown < perplexity(model, turned).with_unknown / 3


def test_discounts_are_those_of_equation_26_of_chen_and_goodman():
    # Y = 60 / (60 + 2 * 20) = 0.6
    counts = np.array([60, 20, 10, 5])
    expected = [1 - 2 * 0.6 * 20 / 60, 2 - 3 * 0.6 * 10 / 20, 3 - 4 * 0.6 * 5 / 10]
    assert estimate_discounts(counts, 3) == pytest.approx(expected)
    assert fallback_discounts(counts, 3) == pytest.approx(expected)


@pytest.mark.parametrize("counts", [[0, 5, 5, 5], [5, 0, 5, 5], [5, 5, 0, 5], [9, 1, 9, 1]])
def test_without_discounts_above_zero_there_is_an_error_or_the_fallback(counts):
    with pytest.raises(NGramError, match=r"the 3-grams have no Kneser-Ney discounts.*fallback"):
        estimate_discounts(np.array(counts), 3)
    assert fallback_discounts(np.array(counts), 3).tolist() == [0.5, 1, 1.5]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sentences": []}, "needs a sentence"),
        ({"sentences": ["A <unk> B"]}, "no word <unk>"),
        ({"sentences": ["A B", "A <s> B"]}, "sentence 2 contains <s> or </s>"),
        ({"sentences": ["A B", "B A"], "order": 5}, "no 5-gram comes more than 0 times; lower the order"),
        ({"sentences": VERSES, "prune": (0, 0, 99)}, "no 3-gram comes more than 99 times"),
        ({"sentences": VERSES, "order": 0}, "order 0"),
        ({"sentences": VERSES, "prune": ()}, "1 to 4 thresholds"),
        ({"sentences": VERSES, "prune": (1,)}, "0 first"),
        ({"sentences": VERSES, "prune": (0, 2, 1)}, "never falling"),
        ({"sentences": ROSE}, "no Kneser-Ney discounts"),
    ],
)
def test_what_gives_no_model_is_refused_in_one_line(arguments, message):
    with pytest.raises(NGramError, match=message) as error:
        train_ngram(**arguments)
    assert "\n" not in str(error.value)


def test_marks_of_the_sentence_inside_it_have_no_score():
    model = train_ngram(VERSES, 2)
    with pytest.raises(NGramError, match="contains <s> or </s>"):
        model.log10_probs(["AND", "</s>"])
    with pytest.raises(NGramError, match="without a sentence"):
        perplexity(model, [])
