"""Every record of a corpus read and decoded once: what is kept of each is numbers and texts, never sound."""

import contextlib
import hashlib
import io
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, NamedTuple

import numpy as np
import soundfile

from w2v2_jax.data.audio import AudioError, rms
from w2v2_jax.data.corpora import CorpusError
from w2v2_jax.data.remote import UnreachableError
from w2v2_jax.preflight.corpus import CHECKED, Part

TOGETHER = 128
"""Records that a process looks at before it says so."""
MANY = 1024
"""Records for which it pays to start processes; threads would wait for each other's turn at the interpreter."""
FULL_SCALE = np.iinfo(np.int16)


class Sound(NamedTuple):
    """A recording, decoded to 16 bits: what its header says, the MD5 of all samples, and two measures of level.

    `rms` is 1 for a square wave at full scale; `clipped` is the share of samples at full scale.
    """

    container: str
    rate: int
    channels: int
    num_samples: int
    digest: bytes
    rms: float
    clipped: float


NO_SOUND = Sound("", 0, 0, 0, b"", 0.0, 0.0)


class Scanned(NamedTuple):
    """What is known of record `index` of a split. `num_samples` is what the record says, whatever decodes.

    `unreadable`, `undecodable` and `misindexed` are what is wrong with it, and empty otherwise: it can't be read from
    disk, its sound can't be decoded (`sound` is `NO_SOUND` in both cases), or the index knows it otherwise.
    """

    split: str
    index: int
    id: str
    text: str = ""
    speaker: str = ""
    num_samples: int = 0
    sound: Sound = NO_SOUND
    unreadable: str = ""
    undecodable: str = ""
    misindexed: str = ""

    @property
    def name(self) -> str:
        """How it is called in a report."""
        return f"{self.split}/{self.id}" if self.id else f"{self.split}[{self.index}]"


def scan(part: Part, advance: Callable[[int], Any], processes: int = os.cpu_count() or 1) -> list[Scanned]:
    """All records of a split, in their order; `advance` hears how many more are done.

    Raises:
        CorpusError: if a process was killed.
        UnreachableError: for a bucket that doesn't answer any more.
    """
    scanned = []
    try:
        with contextlib.closing(_found(part, processes)) as parts:
            for found in parts:
                scanned += [_compared(each, part.known) for each in found]
                advance(len(found))
    except BrokenProcessPool as error:
        raise CorpusError(
            f"one of {processes} processes that read {part.split} was killed, most likely for want of memory"
        ) from error
    return scanned


def _found(part: Part, processes: int) -> Iterator[list[Scanned]]:
    # Without what the index knows, which of a large corpus is too much for every process to hold.
    part = Part(part.split, part.records, {})
    everything = range(len(part.records))
    pieces = [everything[first : first + TOGETHER] for first in everything[::TOGETHER]]
    if processes == 1 or len(everything) < MANY:
        yield from (_some(part, piece) for piece in pieces)
        return
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _hold, (part,)) as pool:
        yield from pool.map(_some_held, pieces)


def _some(part: Part, places: range) -> list[Scanned]:
    return [_scan(part, place) for place in places]


_HELD: list[Part] = []
"""What a process of `scan` reads."""


def _hold(part: Part) -> None:
    # Who interrupts all of them at once hears of it from the process that started them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _HELD[:] = [part]


def _some_held(places: range) -> list[Scanned]:
    return _some(_HELD[0], places)


def _scan(part: Part, index: int) -> Scanned:
    try:
        record = part.records[index]
    except UnreachableError:  # as would be all that come after it, each for a quarter of an hour
        raise
    except Exception as error:  # whatever damage does to a reader: it is reported, with the others
        return Scanned(part.split, index, "", unreadable=str(error.__cause__ or error))
    scanned = Scanned(part.split, index, **{name: record[name] for name in CHECKED})
    try:
        return scanned._replace(sound=measure(record["audio"]))
    except AudioError as error:
        return scanned._replace(undecodable=str(error))


def _compared(scanned: Scanned, known: Mapping[str, Sequence[Any]]) -> Scanned:
    """With what the index knows of the record otherwise, or by its name there if it can't be read."""
    indexed = {name: values[scanned.index] for name, values in known.items()}
    if scanned.unreadable:
        return scanned._replace(id=indexed.get("id", ""))
    return scanned._replace(misindexed=_difference({name: getattr(scanned, name) for name in CHECKED}, indexed))


def _difference(fields: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    told = ((name, value, known.get(name, value)) for name, value in fields.items())
    return "; ".join(f"{name} is {value!r}, in the index {other!r}" for name, value, other in told if value != other)


def measure(data: bytes) -> Sound:
    """The measures of a recording in a file.

    There is no NaN to look for: FLAC holds whole numbers, and what isn't FLAC is reported for that.

    Raises:
        AudioError: for what can't be decoded as a whole, or to other samples than were encoded.
    """
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            samples = file.read(dtype="int16", always_2d=True)
            header = Sound(file.format, file.samplerate, file.channels, len(samples), b"", 0.0, 0.0)
            announced, is_16_bit = file.frames, file.subtype == "PCM_16"
    except soundfile.LibsndfileError as error:
        raise AudioError(f"undecodable: {error.error_string.rstrip('.')}") from error
    if len(samples) != announced:
        raise AudioError(f"cut short: the header announces {announced} samples, {len(samples)} can be decoded")
    digest = hashlib.md5(samples.astype("<i2").tobytes(), usedforsecurity=False).digest()
    if is_16_bit and digest != _told_digest(data, digest):
        raise AudioError("altered: the samples are not those that were encoded, by the checksum in the header")
    at_full_scale = np.count_nonzero((samples == FULL_SCALE.max) | (samples == FULL_SCALE.min))
    level = rms(samples.mean(axis=1, dtype=np.float32) / np.float32(2**15))
    return header._replace(digest=digest, rms=level, clipped=at_full_scale / max(samples.size, 1))


def _told_digest(data: bytes, otherwise: bytes) -> bytes:
    """The MD5 in the header of a FLAC file, which is zeros where its encoder didn't know it."""
    told = data[26:42]
    return told if data[:4] == b"fLaC" and any(told) else otherwise
