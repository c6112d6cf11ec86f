import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from utterances import Letters, Memory, numbers, take, utterance

from w2v2_jax.data.buckets import Bucket, FixedBuckets
from w2v2_jax.data.mixtures import AlphaShares, ByLanguage, FixedShares, Mixture, portions
from w2v2_jax.data.pipeline import Clips, Transcribed
from w2v2_jax.data.records import Mix
from w2v2_jax.description import build, describe
from w2v2_jax.overrides import override

HOUR = 3600 * 16_000


def told(name, *spoken):
    """A source of which all is known but the sound: a language and hours of each utterance."""
    known = ({"language": language, "num_samples": int(hours * HOUR), "id": f"{name}{i}"}
             for i, (language, hours) in enumerate(spoken))  # fmt: skip
    return Memory(tuple(known), name)


def shares_of(source):
    """The share of each portion, and the places in it, by its name."""
    records = source.records()
    found = portions(records, str(source))
    return {name: (pytest.approx(share), places.tolist()) for name, places, share in found}


@pytest.mark.parametrize(
    ("alpha", "expected"),
    [(1, [0.6, 0.3, 0.1]), (0, [1 / 3, 1 / 3, 1 / 3]), (0.5, np.sqrt([6, 3, 1]) / np.sqrt([6, 3, 1]).sum())],
)
def test_shares_grow_with_a_power_of_hours(alpha, expected):
    np.testing.assert_allclose(AlphaShares(alpha)(np.array([60.0, 30.0, 10.0])), expected)


def test_shares_are_those_of_a_hand_count():
    """XLSR's alpha: 900, 400 and 100 hours are drawn as 3 to 2 to 1."""
    np.testing.assert_allclose(AlphaShares(0.5)(np.array([900.0, 400.0, 100.0])), [3 / 6, 2 / 6, 1 / 6])


def test_fixed_shares_add_up_to_one_whatever_there_is():
    np.testing.assert_allclose(FixedShares((3, 1))(np.array([1.0, 99.0])), [0.75, 0.25])


def test_a_source_without_shares_is_one_portion():
    assert shares_of(told("a", ("de", 1), ("fr", 2))) == {"a": (1, [0, 1])}
    mixed = Mix((Mixture((told("a", ("de", 1)), told("b", ("de", 9))), FixedShares((1, 1))), told("c", ("fr", 1))))
    assert [places for _, places in shares_of(mixed).values()] == [[0, 1, 2]]


def test_a_language_has_its_share_over_all_corpora():
    """4 h of German in two corpora and 1 h of French, as XLSR-53 counts them."""
    corpora = Mix((told("a", ("de", 1), ("fr", 1)), told("b", ("de", 3))))
    german, french = shares_of(ByLanguage(corpora, AlphaShares(0.5))).values()
    assert german == (2 / 3, [0, 2])
    assert french == (1 / 3, [1])


def test_corpora_share_first_and_their_languages_within_them():
    """As XLS-R counts: 10 h and 40 h of two corpora are drawn as 1 to 2, 9 h and 1 h within the first as 3 to 1."""
    first = told("a", ("de", 9), ("fr", 1))
    second = told("b", ("en", 20), ("en", 20))
    mixture = Mixture(tuple(ByLanguage(each, AlphaShares(0.5)) for each in (first, second)), AlphaShares(0.5))
    assert shares_of(mixture) == {
        "de of a": (1 / 3 * 3 / 4, [0]),
        "fr of a": (1 / 3 * 1 / 4, [1]),
        "en of b": (2 / 3, [2, 3]),
    }


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: AlphaShares(-0.1), "alpha=-0.1: give a number from 0"),
        (lambda: AlphaShares(1.5), "alpha=1.5: give a number from 0"),
        (lambda: FixedShares((1, 0)), r"weights=\(1, 0\): give numbers above 0"),
        (lambda: FixedShares((1, np.inf)), "give numbers above 0"),
        (lambda: Mixture((), AlphaShares(1)), "of no sources"),
        (lambda: shares_of(Mixture((told("a", ("de", 1)),), FixedShares((1, 2)))), "2 weights were given for 1 parts"),
        (lambda: shares_of(Mixture((told("a", ("de", 1)), told("b")), AlphaShares(0))), "b has no utterances"),
        (lambda: shares_of(ByLanguage(told("a", ("de", 1), ("", 1)), AlphaShares(0))), "'a1' of a has no language"),
    ],
)
def test_what_cannot_be_shared_is_an_error(make, problem):
    with pytest.raises(ValueError, match=problem):
        make()


LARGE = Memory(tuple(utterance(i, 500 + 100 * i, language="de") for i in range(20)), "large")
SMALL = Memory(tuple(utterance(i, 500 + 400 * i, language="fr") for i in range(20, 24)), "small")
THREE_TO_ONE = Mixture((LARGE, SMALL), FixedShares((3, 1)))
CLIPS = Clips(THREE_TO_ONE, batch_size=8, num_samples=400, normalise=False, min_samples=400)
BUCKETS = FixedBuckets((Bucket(1500, 4, 8), Bucket(16_000, 2, 8)))
TRANSCRIBED = Transcribed(THREE_TO_ONE, Letters(), BUCKETS, normalise=False)


def rows_of(data, count):
    return [number for batch in take(data.batches(0), count) for number in numbers(batch)]


def test_clips_are_drawn_by_their_shares_from_the_first_batch_on():
    rows = np.array(rows_of(CLIPS, 40))
    for count in (16, 80, 320):
        assert abs(np.count_nonzero(rows[:count] >= 20) - count / 4) <= 1


def test_each_part_goes_through_epochs_of_its_own():
    rows = rows_of(CLIPS, 40)
    for part, size in ((range(20), 20), (range(20, 24), 4)):
        ours = [row for row in rows if row in part]
        epochs = [tuple(ours[start : start + size]) for start in range(0, len(ours) - size + 1, size)]
        assert len(epochs) > 10 and all(sorted(epoch) == sorted(part) for epoch in epochs)
        assert len(set(epochs)) > len(epochs) / 2


def test_what_comes_again_is_cropped_elsewhere():
    clips = replace(CLIPS, source=Mixture((Memory((utterance(0, 5000),)), LARGE), FixedShares((1, 1))))
    rows = [row.tobytes() for batch in take(clips.batches(0), 6) for row in batch.waveform[::2]]
    assert len(set(rows)) == 24


def test_utterances_with_transcripts_are_drawn_by_their_shares_whatever_their_lengths():
    """A quarter of the rows for 4 utterances, and three quarters for 20."""
    counts = Counter(rows_of(TRANSCRIBED, 160))
    total = counts.total()
    for number in range(24):
        assert counts[number] == pytest.approx(total * (1 / 16 if number >= 20 else 3 / 80), abs=2)


def test_shares_of_one_by_size_change_nothing_but_the_order():
    by_size = replace(TRANSCRIBED, source=Mixture((LARGE, SMALL), FixedShares((20, 4))))
    plain = replace(TRANSCRIBED, source=Mix((LARGE, SMALL)))
    assert by_size.shapes() == plain.shapes()
    expected, found = (Counter(rows_of(data, 80)) for data in (plain, by_size))
    assert all(abs(found[number] - expected[number]) <= 2 for number in range(24))


def test_an_evaluation_takes_every_utterance_once():
    for data in (CLIPS, TRANSCRIBED):
        assert Counter(number for batch in data.epoch() for number in numbers(batch)) == Counter(range(24))


def test_a_part_of_too_short_utterances_is_an_error_that_names_it():
    with pytest.raises(ValueError, match="none of the 20 utterances of large has min_samples=2500"):
        replace(CLIPS, min_samples=2500).batches(0)


def test_processes_compare_their_shares():
    by_language = replace(CLIPS, source=ByLanguage(Mix((LARGE, SMALL)), FixedShares((3, 1))))
    for data in (CLIPS, TRANSCRIBED, by_language):
        assert json.loads(json.dumps(data.summary()))["shares"] == [0.75, 0.25]


def test_a_mixture_is_kept_in_checkpoints_and_its_settings_can_be_changed():
    mixture = Mixture((ByLanguage(Mix(()), AlphaShares(0.5)), Mix(())), FixedShares((2, 1.5)))
    assert build(json.loads(json.dumps(describe(mixture)))) == mixture
    changed = override(mixture, {"sources.0.shares.alpha": 0.3, "shares.weights": (1, 3)})
    assert changed.sources[0].shares == AlphaShares(0.3) and changed.shares == FixedShares((1, 3))
