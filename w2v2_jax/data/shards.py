"""Shards: the files that a corpus is made of, each written by one call, in whatever process on whatever machine.

A shard is there when the page about it is, which is written last; so work that was killed goes on with the others.
"""

import collections
import concurrent.futures
import contextlib
import functools
import hashlib
import itertools
import json
import os
import pathlib
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from array_record.python import array_record_module
from tensorflow_datasets.core import example_serializer

from w2v2_jax.data.audio import SAMPLE_RATE, AudioError, Utterance, check_duration, encode_flac
from w2v2_jax.data.corpora import INDEX, INDEXED, Path, features, packed
from w2v2_jax.data.remote import is_remote, naming_bucket
from w2v2_jax.data.sources.layout import rejected

UTTERANCES = 1024
"""Of a shard: some hundred megabytes, a few minutes of work."""
PAGES = "shards"
"""The folder of the pages about shards."""
UNFINISHED = ".unfinished."
"""What files are called until they are whole."""
AHEAD = 4
"""Utterances that each thread may be ahead of the writer."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class Reject(NamedTuple):
    """An utterance that was left out; `reason` is `kind: detail`."""

    split: str
    id: str
    path: str
    reason: str


class Shard(NamedTuple):
    """What shard `index` of `count` of a split is made of; utterances longer than `max_seconds` are rejected."""

    corpus: str
    split: str
    index: int
    count: int
    utterances: Sequence[Utterance]
    max_seconds: float

    @property
    def file(self) -> str:
        """The name of its file."""
        return shard_file(self.corpus, self.split, self.index, self.count)

    @property
    def crc32(self) -> int:
        """Of what is to be written: another source, or one that has changed, has another."""
        told = ((each.id, each.path, each.text) for each in self.utterances)
        return zlib.crc32(repr((self.max_seconds, *told)).encode())


class Written(NamedTuple):
    """A page: what became of a shard. Utterances kept have so many samples; `num_bytes` and `sha256` are the file's."""

    file: str
    crc32: int
    num_samples: list[int]
    rejects: list[Reject]
    num_bytes: int
    sha256: str


def shard_file(corpus: str, split: str, index: int, count: int) -> str:
    """The name that TFDS has for a shard."""
    return f"{corpus}-{split}.array_record-{index:05d}-of-{count:05d}"


def num_shards(utterances: Sequence[Utterance]) -> int:
    """How many there are of a split; one if it is empty."""
    return max(-(-len(utterances) // UTTERANCES), 1)


def shards_of(corpus: str, splits: Mapping[str, Sequence[Utterance]], max_seconds: float) -> Iterator[Shard]:
    """The shards of all splits, in their order. An utterance whose id was seen before will be rejected for it."""
    for split, utterances in splits.items():
        distinct, count = _distinct(utterances), num_shards(utterances)
        for index in range(count):
            yield Shard(corpus, split, index, count, [*itertools.islice(distinct, UTTERANCES)], max_seconds)


def write_shard(shard: Shard, folder: str, threads: int = 1, advance: Callable[[], Any] = lambda: None) -> Written:
    """Writes the records of a shard, and what is in them but sound once more, into the folder of the corpus.

    What is there already is not written again. `advance` is called for each utterance.
    """
    target, page = Path(folder) / shard.file, page_of(Path(folder), shard.file)
    found = read_page(page)
    if found and found.crc32 == shard.crc32 and target.exists():
        for _ in shard.utterances:
            advance()
        return found
    known, rejects = [], []
    serialise = example_serializer.ExampleSerializer(features().get_serialized_info()).serialize_example
    with _published(target) as file, _published(index_file(folder, shard)) as index:
        writer = array_record_module.ArrayRecordWriter(file, "group_size:1")
        for record in in_order(functools.partial(_record, shard), shard.utterances, threads):
            advance()
            if isinstance(record, Reject):
                rejects.append(record)
                continue
            writer.write(serialise(features().encode_example(record)))
            known.append({name: record[name] for name in INDEXED})
        writer.close()
        pathlib.Path(index).write_bytes(packed(known))
        size, digest = os.path.getsize(file), _sha256(file)
    num_samples = [record["num_samples"] for record in known]
    written = Written(shard.file, shard.crc32, num_samples, rejects, size, digest)
    with _published(page) as unfinished, open(unfinished, "w") as file:
        json.dump(written._asdict(), file)
    return written


def page_of(directory: Path, file: str) -> Path:
    """Where the page about a shard is."""
    return directory / PAGES / f"{file}.json"


def read_page(page: Path) -> Written | None:
    """What a page says, nothing if it isn't there."""
    if not page.exists():
        return None
    fields = json.loads(page.read_text())
    return Written(**{**fields, "rejects": [Reject(*reject) for reject in fields["rejects"]]})


def index_file(folder: str | Path, shard: Shard) -> Path:
    """What is known of the records of a shard beside their sound."""
    return Path(folder) / INDEX / f"{shard.split}-{shard.index:05d}-of-{shard.count:05d}.json.gz"


def in_order(function: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """`map` on threads (decoding, resampling and FLAC release the GIL), a bounded number of items ahead."""
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        ahead = collections.deque[concurrent.futures.Future]()
        for item in items:
            ahead.append(pool.submit(function, item))
            if len(ahead) > AHEAD * threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _record(shard: Shard, utterance: Utterance) -> dict[str, Any] | Reject:
    """The record of one utterance, or why there is none."""
    try:
        waveform, phones = utterance.read(shard.max_seconds)
        check_duration(len(waveform) / SAMPLE_RATE, shard.max_seconds)
        return {
            "audio": encode_flac(waveform),
            "num_samples": len(waveform),
            "text": utterance.text,
            "speaker": utterance.speaker,
            "language": utterance.language,
            "id": utterance.id,
            "phones": {
                "symbol": [phone.symbol for phone in phones],
                "start": np.array([phone.start for phone in phones], np.int64),
                "end": np.array([phone.end for phone in phones], np.int64),
            },
        }
    except AudioError as error:
        return Reject(shard.split, utterance.id, utterance.path, str(error))
    except Exception as error:  # one file in a million must not end a run of days: it is reported instead
        return Reject(shard.split, utterance.id, utterance.path, f"{type(error).__name__}: {error}")


def _distinct(utterances: Sequence[Utterance]) -> Iterator[Utterance]:
    """`utterances`, where one whose id was seen before is replaced by one that will be rejected for it."""
    hashes = np.sort(np.fromiter((hash(each.id) for each in utterances), np.int64, len(utterances)))
    suspects = set(hashes[1:][hashes[1:] == hashes[:-1]].tolist())
    seen = set[str]()
    for utterance in utterances:
        if utterance.id in seen:
            utterance = utterance._replace(read=rejected(f"duplicate: the id {utterance.id} occurs before"))
        elif hash(utterance.id) in suspects:
            seen.add(utterance.id)
        yield utterance


def remove_leftovers(directory: Path) -> None:
    """Removes files that processes which were killed had begun."""
    for folder in (directory, directory / INDEX, directory / PAGES):
        for file in folder.glob(f"{UNFINISHED}*"):
            file.unlink()


@contextlib.contextmanager
def _published(target: Path) -> Iterator[str]:
    """A local file to write, which becomes `target`, here or in a bucket, once it is whole."""
    handle, unfinished = tempfile.mkstemp(dir=local_folder(target.parent), prefix=UNFINISHED)
    os.close(handle)
    try:
        yield unfinished
        if is_remote(target):
            with naming_bucket(target.parent):
                Path(unfinished).copy(target, overwrite=True)
        else:
            os.chmod(unfinished, 0o644)
            os.replace(unfinished, target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(unfinished)


def local_folder(folder: Path) -> str:
    """Where files that are going to be in `folder` are written: there, or for a bucket among the temporary files."""
    if is_remote(folder):
        return tempfile.gettempdir()
    folder.mkdir(parents=True, exist_ok=True)
    return os.fspath(folder)


def _sha256(file: str) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
