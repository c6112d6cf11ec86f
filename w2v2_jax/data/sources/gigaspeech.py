"""GigaSpeech 1.0: English of audiobooks, podcasts and YouTube, with transcripts of 10,000 hours.

Chen et al. 2021 (arXiv:2106.06909, github.com/SpeechColab/GigaSpeech, for research): `GigaSpeech.json` and under
`audio/SOURCE/P0001` recordings of up to hours, 16 kHz Opus, of which the file names the segments. XS, S, M, L and XL
are of 10, 250, 1,000, 2,500 and 10,000 hours, the larger with all of the smaller; DEV has 12 and TEST 40 hours of
recordings in none of those, transcribed by professionals.
"""

import array
import collections
import dataclasses
import functools
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int32, Int64

from w2v2_jax.data.audio import AudioError, Recording, Utterance, check_duration, check_waveform, open_audio, resample
from w2v2_jax.data.corpora import CorpusError
from w2v2_jax.data.sources.layout import Lazy, rejected

SUBSETS = ("XS", "S", "M", "L", "XL", "DEV", "TEST")
PUNCTUATION = frozenset({"<COMMA>", "<PERIOD>", "<QUESTIONMARK>", "<EXCLAMATIONPOINT>"})
GARBAGE = frozenset({"<SIL>", "<MUSIC>", "<NOISE>", "<OTHER>"})
"""What the people who transcribed DEV and TEST had to call a segment without speech."""
SUFFIXES = (".opus", ".wav", ".flac")
"""Of recordings as published, or as the authors' scripts convert them."""
FIELDS = ("sid", "begin_time", "end_time", "text_tn", "subsets")
UNKNOWN = "N/A"
SPACE = re.compile(r"\s*")
FOLLOWING = re.compile(r"\s*(,|(?=\]))")
CHUNK = 2**24
LONGEST = 2**28
"""Bytes of the longest entry of a recording that is believed to be one."""


@dataclasses.dataclass(frozen=True)
class GigaSpeech:
    """The copy in `folder`, which holds `GigaSpeech.json` and `audio`; each of `subsets` becomes a split (`xl`, `dev`).

    Texts are the words, in capitals; their tags for punctuation are left out, and a segment with a tag for something
    other than speech is rejected. The file is gone through once, a recording at a time, and read again where a
    segment is asked for: 8 bytes for each are held in memory.
    """

    folder: str
    subsets: tuple[str, ...] = ("XL", "DEV", "TEST")
    name: str = "gigaspeech"

    def splits(self) -> dict[str, Sequence[Utterance]]:
        """The segments of each subset, in the order of the file."""
        unknown = [subset for subset in self.subsets if subset not in SUBSETS]
        if unknown:
            raise CorpusError(f"GigaSpeech has no subset '{unknown[0]}'; its subsets are {', '.join(SUBSETS)}")
        listing = Path(self.folder) / "GigaSpeech.json"
        if not listing.is_file():
            raise CorpusError(f"there is no {listing}; give the folder that holds GigaSpeech.json and audio")
        entries, segments = _index(listing)
        missing = [subset for subset in self.subsets if subset not in segments]
        if missing:
            raise CorpusError(f"{listing} has no segment of {missing[0]}; it has some of {', '.join(sorted(segments))}")
        make = functools.partial(_utterance, listing, entries)
        return {subset.lower(): Lazy(make, segments[subset]) for subset in self.subsets}


class Entry(NamedTuple):
    """What the list says of a recording, and the bytes that say so."""

    start: int
    end: int
    audio: dict[str, Any]


def _index(
    listing: Path,
) -> tuple[Int64[np.ndarray, "recording 2"], dict[str, Int32[np.ndarray, "segment 2"]]]:
    """The bytes of the entry of each recording, and for each subset the recording and the place of each segment."""
    spans, places = array.array("q"), collections.defaultdict(functools.partial(array.array, "i"))
    for recording, (start, end, audio) in enumerate(_entries(listing)):
        spans.extend((start, end))
        for place, segment in enumerate(audio["segments"]):
            missing = [field for field in FIELDS if field not in segment]
            if missing:
                raise CorpusError(f"{listing}: segment {place} of recording {audio.get('aid')} has no '{missing[0]}'")
            for subset in segment["subsets"]:
                places[subset.strip("{}")].extend((recording, place))
    segments = {subset: np.array(pairs, np.int32).reshape(-1, 2) for subset, pairs in places.items()}
    return np.array(spans, np.int64).reshape(-1, 2), segments


def _entries(listing: Path) -> Iterator[Entry]:
    """The entries of `{..., "audios": [entry, ...]}`, of which no more than a few are in memory at a time.

    Latin-1 has a letter for each byte, so that places in the text are places in the file.
    """
    decode = json.JSONDecoder().raw_decode
    with listing.open("rb") as file:
        text, offset = file.read(CHUNK).decode("latin-1"), 0
        opening = re.search(r'"audios"\s*:\s*\[', text)
        if not opening:
            raise CorpusError(f'{listing} is not the list of GigaSpeech: it should be {{..., "audios": [...]}}')
        place = opening.end()
        while not text.startswith("]", place := SPACE.match(text, place).end()):
            try:
                audio, end = decode(text, place)
                following = FOLLOWING.match(text, end)
            except json.JSONDecodeError:
                following = None
            if following:
                yield Entry(offset + place, offset + end, _checked(listing, audio))
                place = following.end()
            elif len(text) - place < LONGEST and (more := file.read(CHUNK)):
                text, offset, place = text[place:] + more.decode("latin-1"), offset + place, 0
            else:
                raise CorpusError(f"{listing}: no recording begins at byte {offset + place}; fetch the file again")


def _checked(listing: Path, audio: Any) -> dict[str, Any]:
    if not isinstance(audio, dict) or not {"path", "segments"} <= audio.keys():
        raise CorpusError(f"{listing}: a recording should have a path and segments, not {str(audio)[:60]}")
    return audio


@functools.lru_cache(maxsize=4)
def _entry(listing: Path, start: int, end: int) -> dict[str, Any]:
    """An entry read again; the segments of one mostly follow each other."""
    with listing.open("rb") as file:
        file.seek(start)
        return json.loads(file.read(end - start))


def _utterance(listing: Path, entries: Int64[np.ndarray, "recording 2"], key: Int32[np.ndarray, "2"]) -> Utterance:
    recording, place = key
    audio = _entry(listing, *map(int, entries[recording]))
    segment = audio["segments"][place]
    path = _recording(listing.parent / audio["path"])
    words = segment["text_tn"].split()
    garbage = GARBAGE.intersection(words)
    text = " ".join(word for word in words if word not in PUNCTUATION | GARBAGE)
    if garbage:
        read = rejected(f"garbage: {min(garbage)}, not speech")
    elif not text:
        read = rejected("no transcript: text_tn has no words")
    else:
        read = functools.partial(read_segment, path, float(segment["begin_time"]), float(segment["end_time"]))
    speaker = segment.get("speaker") or ""
    return Utterance(segment["sid"], str(path), read, text, speaker if speaker != UNKNOWN else "", "en")


def _recording(published: Path) -> Path:
    """The recording as published or, if it isn't there, converted beside it."""
    beside = (published.with_suffix(suffix) for suffix in (published.suffix, *SUFFIXES))
    return next((path for path in beside if path.exists()), published)


def read_segment(path: Path, begin: float, end: float, max_seconds: float) -> Recording:
    """The seconds from `begin` to `end` of a long recording, of which not much more is decoded."""
    check_duration(end - begin, max_seconds)
    with open_audio(path) as file:
        start, stop = round(begin * file.samplerate), round(end * file.samplerate)
        if not 0 <= start < stop <= file.frames:
            seconds = file.frames / file.samplerate
            raise AudioError(f"cut short: the segment is of {begin:g} to {end:g} s, the recording has {seconds:g} s")
        file.seek(start)
        waveform = file.read(stop - start, dtype="float32", always_2d=True).mean(axis=1)
        rate = file.samplerate
    if len(waveform) < stop - start:
        raise AudioError(f"cut short: {len(waveform)} of the {stop - start} samples from {begin:g} s on can be decoded")
    return Recording(check_waveform(resample(waveform, rate), max_seconds))
