from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from w2v2_jax.data.records import InLanguage, Mix, Selection, Subset, columns


@dataclass(frozen=True)
class Memory:
    """A source of `count` utterances of 15 seconds."""

    count: int
    name: str = "u"

    def records(self):
        return [
            {"audio": b"", "num_samples": 15 * 16_000, "text": "a", "id": f"{self.name}{i}"} for i in range(self.count)
        ]


def ids(records):
    return [records[index]["id"] for index in range(len(records))]


def test_a_subset_holds_its_minutes_and_is_the_same_every_time():
    first, second = (ids(Subset(Memory(100), minutes=3).records()) for _ in range(2))
    assert first == second
    assert len(set(first)) == 12


def test_subsets_of_one_seed_are_nested_and_seeds_differ():
    small, large = (ids(Subset(Memory(100), minutes).records()) for minutes in (1, 10))
    assert large[: len(small)] == small
    assert ids(Subset(Memory(100), 10, seed=1).records()) != large


def test_a_subset_larger_than_its_source_is_an_error():
    with pytest.raises(ValueError, match=r"2 minutes was asked .* holds 1\.0"):
        Subset(Memory(4), minutes=2).records()


def test_a_mix_has_the_records_of_each_source_in_turn():
    records = Mix((Memory(2, "a"), Memory(0, "b"), Memory(3, "c"))).records()
    assert ids(records) == ["a0", "a1", "c0", "c1", "c2"]
    with pytest.raises(IndexError):
        records[5]


def test_a_selection_has_the_records_at_its_indices():
    assert ids(Selection(Memory(5).records(), np.array([3, 0]))) == ["u3", "u0"]


def test_columns_are_in_the_order_that_was_asked_for_lengths_as_numbers_and_texts_as_they_are():
    texts, num_samples = columns(Memory(2).records(), "text", "num_samples")
    assert num_samples.dtype == np.int64 and num_samples.tolist() == [240_000] * 2
    assert texts.tolist() == ["a", "a"] and isinstance(texts[0], str)


def test_of_no_records_columns_are_empty_and_still_of_their_kind():
    assert [column.dtype for column in columns([], "num_samples", "id")] == [np.int64, object]


@dataclass(frozen=True)
class InLanguages:
    languages: tuple

    def records(self):
        return [{"id": f"{language}{i}", "language": language} for i, language in enumerate(self.languages)]


def test_one_language_of_several_is_taken_in_its_order():
    assert ids(InLanguage(InLanguages(("de", "fr", "de")), "de").records()) == ["de0", "de2"]


def test_a_language_that_is_not_there_is_an_error_that_tells_which_are():
    with pytest.raises(ValueError, match=r"nothing in 'en' \(it has: de, fr\)"):
        InLanguage(InLanguages(("fr", "de")), "en").records()


class Indexed(list):
    """Records that must not be read for what is kept apart of them."""

    def __getitem__(self, index):
        raise AssertionError

    def columns(self, *names):
        return tuple(np.array([f"{name}{number}" for number in range(len(self))], object) for name in names)


@dataclass(frozen=True)
class IndexedSource:
    def records(self):
        return Indexed([None] * 4)


class Unindexed(Indexed):
    """A corpus from before anything was kept apart."""

    def __getitem__(self, index):
        return {"audio": b"", "id": f"u{index}"}

    def columns(self, *names):
        return None


def test_what_is_kept_apart_from_sound_is_read_without_it():
    mixed = Mix((IndexedSource(), Memory(1))).records()
    assert columns(mixed, "id")[0].tolist() == ["id0", "id1", "id2", "id3", "u0"]
    chosen = columns(Selection(IndexedSource().records(), np.array([3, 1])), "text", "id")
    assert [column.tolist() for column in chosen] == [["text3", "text1"], ["id3", "id1"]]


def test_of_a_selection_from_a_corpus_with_nothing_kept_apart_no_more_is_read():
    class Watched(Unindexed):
        read: ClassVar = []

        def __getitem__(self, index):
            self.read.append(index)
            return super().__getitem__(index)

    assert columns(Selection(Watched([None] * 9), np.array([7, 2])), "id")[0].tolist() == ["u7", "u2"]
    assert sorted(Watched.read) == [2, 7]
