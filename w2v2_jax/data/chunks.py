"""Recordings of any length, piece by piece: chunks that overlap, so that what is made of them can be joined."""

import dataclasses
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from w2v2_jax.data.audio import SAMPLE_RATE, Waveform, open_audio, read_audio, read_blocks


class Chunk(NamedTuple):
    """A piece of a recording, from sample `start` on. Of its frames those from `first` up to `stop` count, which is
    None in the last chunk: all to the end."""

    waveform: Waveform
    start: int
    first: int
    stop: int | None


@dataclasses.dataclass(frozen=True)
class Chunking:
    """Chunks of `seconds` that overlap by twice `stride_seconds`, as transformers' pipeline cuts them.

    Of the frames in an overlap each chunk keeps the half that is nearer to its middle: a frame that is kept has heard
    `stride_seconds` around it, where there are so many. Recordings of up to `seconds` stay whole.
    """

    seconds: float = 30.0
    stride_seconds: float = 5.0

    def __post_init__(self):
        if not 0 < 2 * self.stride_seconds < self.seconds:
            raise ValueError(
                f"chunks of {self.seconds:g} s can't overlap by {self.stride_seconds:g} s at both ends; give a stride "
                "above 0 and less than half a chunk"
            )

    def cut(self, blocks: Iterable[Waveform], hop: int) -> Iterator[Chunk]:
        """The chunks of a recording that comes in blocks, in whole frames of `hop` samples.

        Holds no more than a chunk and a block of it.
        """
        size, stride = (max(round(each * SAMPLE_RATE / hop), 1) for each in (self.seconds, self.stride_seconds))
        step = (size - 2 * stride) * hop
        held, start = np.zeros(0, np.float32), 0
        for block in blocks:
            held = np.concatenate([held, block])
            while len(held) > size * hop:
                yield Chunk(held[: size * hop], start, stride if start else 0, size - stride)
                held, start = held[step:], start + step
        yield Chunk(held, start, stride if start else 0, None)

    def read(self, file: str | Path, hop: int, max_seconds: float = math.inf) -> Iterator[Chunk]:
        """The chunks of an audio file; a single one, checked as a whole, where it is short enough.

        Raises:
            AudioError: see `read_audio`; for a longer file perhaps after some of its chunks.
        """
        with open_audio(file, max_seconds) as opened:
            is_short = opened.frames <= self.seconds * opened.samplerate
        if is_short:
            yield Chunk(read_audio(file, max_seconds), 0, 0, None)
        else:
            yield from self.cut(read_blocks(file, max_seconds), hop)
