"""How much there is of each split."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from w2v2_jax.data.audio import SAMPLE_RATE
from w2v2_jax.preflight.scan import Scanned


class Size(NamedTuple):
    """A split by numbers: the records that can be read. Utterances whose speaker isn't known are `unnamed`."""

    utterances: int
    hours: float
    speakers: int
    unnamed: int
    median_seconds: float
    shortest_seconds: float
    shortest: str
    longest_seconds: float
    longest: str


def seconds_of(scanned: Sequence[Scanned]) -> dict[str, Float[np.ndarray, " utterance"]]:
    """The durations in each split, of the records that can be read."""
    lengths: dict[str, list[int]] = {}
    for each in scanned:
        lengths.setdefault(each.split, []).extend([] if each.unreadable else [each.num_samples])
    return {split: np.array(found, np.float64) / SAMPLE_RATE for split, found in lengths.items()}


def sizes(scanned: Sequence[Scanned]) -> dict[str, Size]:
    """Every split of which anything can be read."""
    by_split: dict[str, list[Scanned]] = {}
    for each in scanned:
        if not each.unreadable:
            by_split.setdefault(each.split, []).append(each)
    return {split: _size(found) for split, found in by_split.items()}


def _size(scanned: Sequence[Scanned]) -> Size:
    seconds = np.array([each.num_samples for each in scanned]) / SAMPLE_RATE
    shortest, longest = int(seconds.argmin()), int(seconds.argmax())
    speakers = {each.speaker for each in scanned} - {""}
    return Size(
        utterances=len(scanned),
        hours=float(seconds.sum()) / 3600,
        speakers=len(speakers),
        unnamed=sum(not each.speaker for each in scanned),
        median_seconds=float(np.median(seconds)),
        shortest_seconds=float(seconds[shortest]),
        shortest=scanned[shortest].id,
        longest_seconds=float(seconds[longest]),
        longest=scanned[longest].id,
    )
