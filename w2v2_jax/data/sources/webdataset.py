"""Shards of WebDataset: tar archives in which files of one stem, up to the first dot, are a sample.

A recording and what is known of it stand next to each other: `0001.flac`, and `0001.txt` with its transcript,
`0001.json` with that and more, or `0001.cls` with the number of its class.
"""

import collections
import dataclasses
import functools
import glob
import io
import itertools
import json
import re
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64

from w2v2_jax.data.audio import HEADERLESS, AudioError, Recording, Utterance, read_audio
from w2v2_jax.data.corpora import CorpusError
from w2v2_jax.data.sources.folders import SUFFIXES
from w2v2_jax.data.sources.layout import Chain, Lazy, rejected
from w2v2_jax.data.sources.manifests import LANGUAGE_KEYS, TEXT_KEYS

KINDS = (SUFFIXES, {".txt", ".text", ".transcript"}, {".json", ".jsn"}, {".cls"})
"""Of members that are read: recordings, transcripts, what is known, classes."""
SAMPLE = re.compile(r"(?P<key>(?:.*/|)[^.]+)\.(?P<suffix>[^/]*)")
METADATA = re.compile(r"__[^/]*__($|/)")
NUMBER = re.compile(r"\d+$")
PREFIX = re.compile(r".*?(?=[-_.]?(\[0-9\]\*)?$)")
BRACES = re.compile(r"\{([^{}]*)\}")
SPEAKER_KEYS = ("speaker", "speaker_id")


@dataclasses.dataclass(frozen=True)
class WebDataset:
    """The shards of each split: `WebDataset("mine", (("train", "to/train-{000000..000146}.tar"), ("dev", "to/dev")))`.

    Shards are given as a pattern with braces or with `*`, or as a folder of .tar files; those of a split without a name
    are a folder in which `shards_in` finds the splits. One pass over the headers of an archive tells where its samples
    are. An utterance is called by its shard and key. Of a sample's texts the first of .txt, .json and .cls is taken, as
    it stands. `language` is of samples that don't say theirs.
    """

    name: str
    shards: tuple[tuple[str, str], ...]
    language: str = ""

    def splits(self) -> dict[str, Sequence[Utterance]]:
        """The samples of each split, shard by shard."""
        files = collections.defaultdict(list)
        for split, pattern in self.shards:
            for each, shards in [(split, pattern)] if split else shards_in(pattern):
                files[each] += expand(shards)
        return {split: Chain([_utterances(shard, self.language) for shard in files[split]]) for split in files}


def shards_in(folder: str) -> tuple[tuple[str, str], ...]:
    """Splits and patterns of the shards in a folder: `train-000000.tar` and so on, or `train/000000.tar`.

    A split is called by the folder if each has one of its own, else by what comes before the number.
    """
    found = (NUMBER.sub("[0-9]*", str(file.with_suffix(""))) + ".tar" for file in sorted(Path(folder).rglob("*.tar")))
    patterns = [Path(pattern) for pattern in dict.fromkeys(found)]
    parents = {pattern.parent for pattern in patterns}
    has_own = len(parents) == len(patterns) and Path(folder) not in parents
    splits = [pattern.parent.name if has_own else PREFIX.match(pattern.stem)[0] for pattern in patterns]
    names = [re.sub(r"\W+", "_", split) for split in splits]
    if not patterns:
        raise CorpusError(f"{folder} has no .tar file at any depth; give a folder that has")
    if not all(names) or len({*names}) < len(names):
        there = ", ".join(map(str, patterns))
        raise CorpusError(f"what splits there are in {folder} can't be told from {there}; give a pattern for each")
    return tuple(zip(names, map(str, patterns), strict=True))


def expand(pattern: str) -> list[Path]:
    """The files that a pattern stands for; `CorpusError` if one isn't there."""
    if Path(pattern).is_dir():
        pattern = f"{glob.escape(pattern)}/*.tar"
    files = [Path(file) for each in _braces(pattern) for file in (sorted(glob.glob(each)) or [each])]
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise CorpusError(f"there is no shard {missing[0]}; '{pattern}' should stand for .tar files that are there")
    return files


def _braces(pattern: str) -> Iterator[str]:
    """`a{08..10}b` is a08b, a09b, a10b, and `a{x,y}b` is axb, ayb."""
    braces = BRACES.search(pattern)
    if not braces:
        yield pattern
        return
    numbers = re.fullmatch(r"(\d+)\.\.(\d+)", braces[1])
    if numbers:
        first, last = numbers.groups()
        choices = [f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1)]
    else:
        choices = braces[1].split(",")
    for choice in choices:
        yield from _braces(pattern[: braces.start()] + choice + pattern[braces.end() :])


class Index(NamedTuple):
    """The samples of a shard: the name of the recording, and where which member begins and its size, or zeros."""

    names: np.ndarray
    places: Int64[np.ndarray, "sample kind 2"]


def _utterances(shard: Path, language: str) -> Sequence[Utterance]:
    index = _index(shard)
    return Lazy(functools.partial(_utterance, shard, index, language), range(len(index.names)))


def _index(shard: Path) -> Index:
    names, places = [], []
    for key, members in itertools.groupby(_members(shard), key=lambda member: member.key):
        name, sample = f"{key}.", np.zeros((len(KINDS), 2), np.int64)
        for member in members:
            kind = _kind(member.suffix)
            if kind is None:
                continue
            if sample[kind].any():
                raise CorpusError(f"{shard}: sample {key} has two files of a kind, the second is .{member.suffix}")
            sample[kind] = member.place, member.size
            name = f"{key}.{member.suffix}" if kind == 0 else name
        names.append(name.encode(errors="replace"))
        places.append(sample)
    return Index(np.array(names, np.bytes_), np.array(places, np.int64).reshape(-1, len(KINDS), 2))


def _kind(suffix: str) -> int | None:
    """Which of `KINDS` a member is by the last part of its suffix; nothing for what isn't read."""
    last = f".{suffix.rpartition('.')[2]}"
    return next((kind for kind, suffixes in enumerate(KINDS) if last in suffixes), None)


class Member(NamedTuple):
    """A file in an archive: what it belongs to, its suffix in small letters, and where its bytes are."""

    key: str
    suffix: str
    place: int
    size: int


def _members(shard: Path) -> Iterator[Member]:
    try:
        with tarfile.open(shard, "r:") as archive:
            for member in archive:
                sample = SAMPLE.fullmatch(member.name)
                if member.isreg() and sample and not METADATA.match(member.name):
                    yield Member(sample["key"], sample["suffix"].lower(), member.offset_data, member.size)
    except tarfile.TarError as error:
        raise CorpusError(
            f"{shard} can't be read as an archive without compression ({error}); make it again"
        ) from error


def _utterance(shard: Path, index: Index, language: str, sample: int) -> Utterance:
    name, places = index.names[sample].decode(), index.places[sample]
    key = SAMPLE.fullmatch(name)["key"]
    read = _reader(shard, name, *map(int, places[0]))
    utterance = Utterance(f"{shard.stem}/{key}", f"{shard}:{name.rstrip('.')}", read, language=language)
    try:
        text, known, label = (_bytes(shard, *map(int, place)).decode().strip() for place in places[1:])
        known = json.loads(known or "{}")
    except ValueError as error:
        return utterance._replace(read=rejected(f"malformed: what is known of {key} can't be read ({error})"))
    if not isinstance(known, dict):
        return utterance._replace(read=rejected(f"malformed: the JSON of {key} isn't an object"))
    return utterance._replace(
        text=text or _first(known, TEXT_KEYS) or label,
        speaker=_first(known, SPEAKER_KEYS),
        language=_first(known, LANGUAGE_KEYS) or language,
    )


def _reader(shard: Path, name: str, place: int, size: int) -> Callable[[float], Recording]:
    if not place:
        return rejected(f"missing: the sample {name.rstrip('.')} has no recording")
    if Path(name).suffix in HEADERLESS:
        return rejected(f"headerless: {name} has no header to tell its rate and width; convert it to WAV or FLAC")
    return functools.partial(_read, shard, place, size)


def _read(shard: Path, place: int, size: int, max_seconds: float) -> Recording:
    data = _bytes(shard, place, size)
    if len(data) < size:
        raise AudioError(f"cut short: {len(data)} of {size} bytes are there; fetch {shard} again")
    return Recording(read_audio(io.BytesIO(data), max_seconds))


def _bytes(shard: Path, place: int, size: int) -> bytes:
    if not size:
        return b""
    with shard.open("rb") as file:
        file.seek(place)
        return file.read(size)


def _first(known: dict[str, Any], keys: Sequence[str]) -> str:
    return next((str(known[key]) for key in keys if known.get(key)), "")
