import jiwer
import numpy as np
import pytest

from w2v2_jax.decoding.scoring import (
    Counts,
    Utterance,
    by_speaker,
    count_characters,
    count_words,
    resampled_sums,
    score,
    total,
    worst,
)


@pytest.mark.parametrize(
    ("reference", "hypothesis", "expected"),
    [
        ("THE CAT SAT", "THE CAT SAT", Counts(0, 0, 0, 3)),
        ("THE CAT SAT", "THE BAT SAT", Counts(1, 0, 0, 3)),
        ("THE CAT SAT", "THE SAT", Counts(0, 1, 0, 3)),
        ("THE CAT SAT", "THE CAT SAT DOWN", Counts(0, 0, 1, 3)),
        ("", "A WORD", Counts(0, 0, 2, 0)),
        ("A WORD", "", Counts(0, 2, 0, 2)),
        ("", "", Counts(0, 0, 0, 0)),
    ],
)
def test_word_edits_of_hand_cases(reference, hypothesis, expected):
    assert count_words(reference, hypothesis) == expected


def test_surplus_white_space_is_no_error():
    assert count_words(" THE  CAT ", "THE CAT").errors == 0
    assert count_characters(" THE  CAT ", "THE CAT").errors == 0


def test_character_edits_count_the_spaces_between_words():
    assert count_characters("A CAT", "ACAT") == Counts(0, 1, 0, 5)


def random_transcripts(seed, n=50):
    rng = np.random.default_rng(seed)
    words = np.array(["A", "CAT", "SAT", "ON", "THE", "MAT", "IT'S"])
    return [" ".join(rng.choice(words, rng.integers(1, 9))) for _ in range(n)]


@pytest.mark.parametrize(
    ("count", "oracle"), [(count_words, jiwer.process_words), (count_characters, jiwer.process_characters)]
)
def test_corpus_counts_and_rate_equal_jiwer(count, oracle):
    references, hypotheses = random_transcripts(0), random_transcripts(1)
    counts = [count(*pair) for pair in zip(references, hypotheses, strict=True)]
    expected = oracle(references, hypotheses)
    length = expected.hits + expected.substitutions + expected.deletions
    assert total(counts) == (expected.substitutions, expected.deletions, expected.insertions, length)
    assert score(counts).rate == pytest.approx(expected.wer if count is count_words else expected.cer)


def test_the_corpus_rate_sums_counts_and_does_not_average_rates():
    assert score([Counts(1, 0, 0, 1), Counts(0, 0, 0, 9)]).rate == pytest.approx(0.1)


def test_the_interval_is_that_of_the_normal_approximation_for_one_word_utterances():
    counts = [Counts(1, 0, 0, 1)] * 200 + [Counts(0, 0, 0, 1)] * 800
    rate, low, high = score(counts)
    half_width = 1.96 * np.sqrt(0.2 * 0.8 / 1000)
    assert (rate, low, high) == pytest.approx((0.2, 0.2 - half_width, 0.2 + half_width), abs=0.003)


def test_equal_utterances_have_an_interval_of_no_width():
    assert score([Counts(1, 1, 0, 8)] * 20) == pytest.approx((0.25, 0.25, 0.25))


def test_equal_seeds_give_equal_intervals():
    counts = [Counts(i % 3, 0, 0, 10 + i) for i in range(40)]
    assert score(counts, seed=3) == score(counts, seed=3)
    assert score(counts, seed=3) != score(counts, seed=4)


def test_an_empty_reference_adds_its_insertions_to_the_rate():
    result = score([count_words("", "ONE TWO"), count_words("THREE FOUR", "THREE FOUR")])
    assert result.rate == 1
    assert np.all(np.isfinite(result))


@pytest.mark.parametrize("counts", [[], [Counts(0, 0, 0, 0)]])
def test_references_without_text_are_refused(counts):
    with pytest.raises(ValueError, match="needs some text"):
        score(counts)


def spoken_by(*speakers):
    return [Utterance(f"{number}", "A", "A", speaker) for number, speaker in enumerate(speakers)]


def test_counts_add_up_by_speaker_in_order_of_appearance():
    counts = [Counts(1, 0, 0, 3), Counts(0, 1, 0, 4), Counts(0, 0, 1, 5)]
    summed = by_speaker(spoken_by("y", "x", "y"), counts)
    assert [*summed.items()] == [("y", Counts(1, 0, 1, 8)), ("x", Counts(0, 1, 0, 4))]


def test_an_interval_over_speakers_is_that_of_as_many_independent_utterances():
    # All words of a speaker are right, or all are wrong, so that 200 speakers say as much as 200 words.
    utterances = spoken_by(*(f"{number % 200}" for number in range(2000)))
    counts = [Counts(number % 200 < 40, 0, 0, 1) for number in range(2000)]
    rate, low, high = score([*by_speaker(utterances, counts).values()])
    half_width = 1.96 * np.sqrt(0.2 * 0.8 / 200)
    assert (rate, low, high) == pytest.approx((0.2, 0.2 - half_width, 0.2 + half_width), abs=0.01)
    assert high - low > 2.5 * np.subtract(*score(counts)[:0:-1])


@pytest.mark.parametrize(
    ("speakers", "message"),
    [(("x", ""), "who speaks in utterance '1'"), (("x", "x"), r"needs two of them, found \['x'")],
)
def test_an_unknown_speaker_or_a_single_one_is_refused(speakers, message):
    with pytest.raises(ValueError, match=message):
        by_speaker(spoken_by(*speakers), [Counts(0, 0, 0, 1)] * 2)


def test_resamples_are_of_whole_units_as_many_as_there_are():
    units = np.array([[1, 10, 100]] * 5)
    np.testing.assert_array_equal(resampled_sums(units, seed=0, num_resamples=7), [[5, 50, 500]] * 7)
    spread = resampled_sums(np.array([[0, 0], [1, 1]]), seed=0, num_resamples=4000)
    assert np.all(spread[:, 0] == spread[:, 1])
    # 0, 1 or 2 draws of two are the second unit.
    assert np.bincount(spread[:, 0]) / 4000 == pytest.approx([0.25, 0.5, 0.25], abs=0.03)


def test_the_worst_utterances_are_those_with_most_word_errors():
    utterances = [
        Utterance("none", "A B C", "A B C"),
        Utterance("all of one", "A", "B"),
        Utterance("two of four", "A B C D", "A B X Y"),
    ]
    assert [(utterance.id, counts.errors) for utterance, counts in worst(utterances, 2)] == [
        ("two of four", 2),
        ("all of one", 1),
    ]
