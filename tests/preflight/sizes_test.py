import numpy as np
import pytest

from w2v2_jax.preflight.scan import Scanned
from w2v2_jax.preflight.sizes import Size, seconds_of, sizes

SCANNED = [
    Scanned("train", 0, "a", speaker="x", num_samples=16_000),
    Scanned("train", 1, "b", speaker="y", num_samples=48_000),
    Scanned("train", 2, "c", speaker="", num_samples=8_000),
    Scanned("train", 3, "d", speaker="", unreadable="damaged"),
    Scanned("train", 4, "e", speaker="x", num_samples=32_000),
    Scanned("test", 0, "f", unreadable="damaged"),
]


def test_a_split_by_numbers():
    assert sizes(SCANNED) == {
        "train": Size(
            utterances=4,
            hours=pytest.approx(6.5 / 3600),
            speakers=2,
            unnamed=1,
            median_seconds=1.5,
            shortest_seconds=0.5,
            shortest="c",
            longest_seconds=3.0,
            longest="b",
        )
    }


def test_durations_are_those_of_what_can_be_read():
    found = seconds_of(SCANNED)
    np.testing.assert_array_equal(found["train"], [1.0, 3.0, 0.5, 2.0])
    assert len(found["test"]) == 0 and [*found] == ["train", "test"]
