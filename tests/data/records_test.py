from dataclasses import dataclass

import numpy as np
import pytest

from w2v2_jax.data.records import Mix, Selection, Subset, without_audio


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


def test_what_is_known_of_an_utterance_leaves_out_its_sound():
    assert without_audio(Memory(2).records())[1] == {"num_samples": 240_000, "text": "a", "id": "u1"}
