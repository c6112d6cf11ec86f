"""Libri-Light: 60,000 hours of English audiobooks of LibriVox, and ten hours of LibriSpeech to fine-tune on.

Kahn et al. 2020, https://github.com/facebookresearch/libri-light; 16 kHz FLAC, in the public domain as LibriVox is; the
user's own copy.

    without transcripts   small 577 h, medium 5,193 h, large 51,934 h; duplicate 4,500 h, of books that may be in these
                          unlab-600 is small, unlab-6k small and medium, unlab-60k small, medium and large
    with transcripts      train_10min, train_1h, train_10h, each a part of the next; six times ten minutes make the hour
"""

import dataclasses
import functools
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import soundfile

from w2v2_jax.data.audio import (
    MIN_SAMPLES,
    SAMPLE_RATE,
    AudioError,
    Recording,
    Utterance,
    Waveform,
    check_waveform,
    open_audio,
)
from w2v2_jax.data.corpora import CorpusError
from w2v2_jax.data.sources.layout import Chain, Lazy, rejected, unpacked
from w2v2_jax.data.sources.librispeech import read_chapters

PARTS = ("small", "medium", "large", "duplicate")
TENTHS = tuple(f"1h/{fold}" for fold in range(6))
LIMITED = {
    "train_10min": TENTHS[:1],
    "train_1h": TENTHS,
    "train_10h": (*TENTHS, "9h"),
    **{f"train_10min_{fold}": (tenth,) for fold, tenth in enumerate(TENTHS)},
}
"""The folders that each split with transcripts is made of; of the six sets of ten minutes the first is the usual."""

Chunk = tuple[int, int]
"""Voice from a sample up to, not including, another."""
Segment = tuple[Chunk, ...]


@dataclasses.dataclass(frozen=True)
class LibriLight:
    """Segments of the recordings in `folder`, which holds `small`, `medium` and so on, whichever there are.

    A part is PART/SPEAKER/BOOK/RECORDING.flac, with RECORDING.json beside; each is a split. Recordings are of many
    minutes and are cut as the authors' `cut_by_vad.py` does it: chunks with voice, as RECORDING.json lists them, are
    joined in their order, leaving out what lies between, as long as they have no more than `segment_seconds` together;
    30 s and less is what fairseq advises to pretrain on. A single chunk that is longer stays whole there; here it is
    cut into equal pieces. Segments have the names of the authors' files, in the book's folder.
    """

    folder: str
    name: str = "librilight_unlab"
    segment_seconds: float = 30.0

    def splits(self) -> dict[str, Sequence[Utterance]]:
        """The segments of each part; a recording that can't be cut is among them, to be rejected when read."""
        found = [Path(self.folder) / part for part in PARTS if (Path(self.folder) / part).is_dir()]
        if not found:
            raise CorpusError(
                f"{self.folder} holds none of {', '.join(PARTS)}; give the folder where archives of Libri-Light were "
                "unpacked"
            )
        limit = int(self.segment_seconds * SAMPLE_RATE)
        if limit < MIN_SAMPLES:
            raise CorpusError(f"segments of {self.segment_seconds} s would hold no frame; give more segment_seconds")
        return {part.name: Chain([_segments(recording, limit) for recording in _recordings(part)]) for part in found}


@dataclasses.dataclass(frozen=True)
class LibriLightLimited:
    """The ten hours with transcripts in `folder`, where librispeech_finetuning.tgz was unpacked.

    They are in 1h/0 to 1h/5 and in 9h; the phones of frames, in another folder there, are not read. What several
    splits have is written for each of them, twelve hours in all.
    """

    folder: str
    name: str = "librilight"

    def splits(self) -> dict[str, Sequence[Utterance]]:
        """Utterances of 10 minutes, 1 hour and 10 hours, and of each of the six sets of 10 minutes."""
        root = unpacked(self.folder, "librispeech_finetuning")
        folders = {each: [root / each / kind for kind in ("clean", "other")] for each in LIMITED["train_10h"]}
        missing = [str(folder.relative_to(root)) for each in folders.values() for folder in each if not folder.is_dir()]
        if missing:
            raise CorpusError(
                f"{root} lacks {', '.join(missing[:3])}{' ...' * (len(missing) > 3)}; give the folder where "
                "librispeech_finetuning.tgz was unpacked"
            )
        read = {
            each: [utterance for folder in folders[each] for utterance in read_chapters(folder)] for each in folders
        }
        return {split: [utterance for each in parts for utterance in read[each]] for split, parts in LIMITED.items()}


def _recordings(part: Path) -> list[Path]:
    """SPEAKER/BOOK/RECORDING.flac wherever there is that or RECORDING.json."""
    files = (file for file in part.glob("*/*/*") if file.suffix in (".flac", ".json"))
    return sorted({file.with_suffix(".flac") for file in files})


def _segments(recording: Path, limit: int) -> Sequence[Utterance]:
    """The segments of a recording; one to be rejected if nobody knows where they are."""
    try:
        return Lazy(functools.partial(_segment, recording, limit), range(len(_cut(recording, limit))))
    except AudioError as error:
        return [_utterance(recording, recording.stem, rejected(str(error)))]


def _segment(recording: Path, limit: int, number: int) -> Utterance:
    segment = _cut(recording, limit)[number]
    return _utterance(recording, f"{recording.stem}_{number:04}", functools.partial(_read, recording, segment))


def _utterance(recording: Path, name: str, read: Callable[[float], Recording]) -> Utterance:
    speaker, book = recording.parts[-3:-1]
    return Utterance(f"{speaker}/{book}/{name}", str(recording), read, speaker=speaker, language="en")


@functools.lru_cache(maxsize=64)
def _cut(recording: Path, limit: int) -> list[Segment]:
    """The segments of a recording, found again when they are asked for: those of 60,000 hours would fill memories."""
    return cut_by_voice(_read_voice_activity(recording.with_suffix(".json")), limit)


def cut_by_voice(chunks: Sequence[Chunk], limit: int) -> list[Segment]:
    """Segments of successive chunks of no more than `limit` samples together; what lies between is in none."""
    segments: list[list[Chunk]] = [[]]
    room = limit
    for first, last in (piece for chunk in chunks for piece in _pieces(chunk, limit)):
        if last - first > room:
            segments.append([])
            room = limit
        segments[-1].append((first, last))
        room -= last - first
    return [tuple(segment) for segment in segments]


def _pieces(chunk: Chunk, limit: int) -> Iterator[Chunk]:
    """A chunk, in as few equal pieces as `limit` takes."""
    first, last = chunk
    count = max(-(-(last - first) // limit), 1)
    edges = [first + piece * (last - first) // count for piece in range(count + 1)]
    return itertools.pairwise(edges)


def _read_voice_activity(metadata: Path) -> list[Chunk]:
    """The chunks with voice in them that RECORDING.json lists, from and to so many seconds."""
    try:
        seconds = json.loads(metadata.read_text())["voice_activity"]
        chunks = [(int(start * SAMPLE_RATE), int(end * SAMPLE_RATE)) for start, end in seconds]
    except OSError as error:
        raise AudioError(f"no metadata: {metadata.name} would tell where there is voice ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise AudioError(f"metadata: {metadata.name} has no list of starts and ends as voice_activity") from error
    if any(not 0 <= first <= last for first, last in chunks):
        raise AudioError(f"metadata: a chunk of {metadata.name} starts before 0 or ends before it starts")
    if not chunks:
        raise AudioError(f"no voice: {metadata.name} lists none")
    return chunks


def _read(recording: Path, segment: Segment, max_seconds: float) -> Recording:
    with open_audio(recording) as file:
        if (file.samplerate, file.channels) != (SAMPLE_RATE, 1):
            raise AudioError(f"format: {file.samplerate} Hz, {file.channels} channels; Libri-Light is 16 kHz, mono")
        waveform = np.concatenate([_read_chunk(file, *chunk) for chunk in segment])
    return Recording(check_waveform(waveform, max_seconds))


def _read_chunk(file: soundfile.SoundFile, first: int, last: int) -> Waveform:
    """The samples of a chunk, which may end a little after the recording does."""
    first, last = min(first, file.frames), min(last, file.frames)
    file.seek(first)
    samples = file.read(last - first, dtype="float32")
    if len(samples) != last - first:
        raise AudioError(f"cut short: the header announces {file.frames} frames, the file has {file.tell()}")
    return samples
