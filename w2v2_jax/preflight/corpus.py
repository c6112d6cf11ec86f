"""A prepared corpus as it lies on disk, however damaged it is: its shards, and its records to be tried one by one."""

import hashlib
import json
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePath
from types import MappingProxyType
from typing import Any, NamedTuple

import tensorflow_datasets as tfds

from w2v2_jax.data.corpora import (
    REPORT,
    CorpusError,
    Path,
    Split,
    Watch,
    check_readable,
    corpus_dir,
    index_files,
    list_corpora,
    open_split,
)
from w2v2_jax.data.records import Records
from w2v2_jax.data.remote import naming_bucket
from w2v2_jax.preflight.checks import Check, Verdict, search

CHECKED = ("id", "text", "speaker", "num_samples")
"""Of a record, what the index has to know of it too."""


class Part(NamedTuple):
    """A split: its records, and by field what its index knows of each, nothing if there is none or it is damaged."""

    split: str
    records: Records
    known: Mapping[str, list[Any]] = MappingProxyType({})
    defect: str = ""


def open_parts(name: str, split: str, data_dir: str | PurePath) -> list[Part]:
    """The splits of a corpus that hold anything, or `split` alone if it isn't empty.

    Shards that are cut off or missing are no reason not to open it: their records can't be read, the others can.

    Raises:
        CorpusError: where there is no such corpus or split.
        UnreachableError: for a bucket that doesn't answer.
    """
    with naming_bucket(data_dir):
        return _open_parts(name, split, data_dir)


def _open_parts(name: str, split: str, data_dir: str | PurePath) -> list[Part]:
    check_readable(data_dir)
    directory = corpus_dir(name, data_dir)
    if name not in list_corpora(data_dir):
        open_split(name, split, data_dir)  # says what there is instead
    builder = tfds.builder_from_directory(os.fspath(directory))
    sizes = {key: info.num_examples for key, info in builder.info.splits.items()}
    if split and not sizes.get(split):
        there = ", ".join(f"{key} ({size})" for key, size in sizes.items())
        raise CorpusError(f"corpus '{name}' has no utterances in a split '{split}'; it has {there}; give one of them")
    chosen = [split] if split else [key for key, size in sizes.items() if size]
    return [_part(directory, key, builder) for key in chosen]


def _part(directory: Path, split: str, builder: Any) -> Part:
    files = index_files(directory, split)
    records = Split(f"{builder.name}/{split}", builder.as_data_source(split), Watch(directory), files)
    try:
        columns = records.columns(*CHECKED)
    except (OSError, ValueError, EOFError, zlib.error) as error:
        return Part(split, records, defect=f"{split}: {error}")
    if columns is None:
        return Part(split, records)
    if (count := len(columns[0])) != len(records):
        return Part(split, records, defect=f"{split}: {count} utterances in the index, {len(records)} in the shards")
    return Part(split, records, {name: column.tolist() for name, column in zip(CHECKED, columns, strict=True)})


def index_check(parts: Sequence[Part]) -> Check:
    """Whether what is kept beside the sound can be read and is of as many utterances."""
    return search("damaged index", Verdict.ERROR, (part.defect for part in parts if part.defect), "splits")


def shard_check(name: str, splits: Sequence[str], data_dir: str | PurePath, advance: Callable[[int], Any]) -> Check:
    """Whether the files of the splits are what was written, by their sizes and checksums: reads all of them.

    `advance` hears of each file.
    """
    directory = corpus_dir(name, data_dir)
    shards = json.loads((directory / REPORT).read_text()).get("shards", {})
    told = {file: each for split in splits for file, each in shards.get(split, {}).items()}
    if not told:
        return Check("damaged shard files", Verdict.INFO, 0, "files", ("no checksums were kept when it was prepared",))
    defects = []
    with ThreadPoolExecutor() as threads:
        for defect in threads.map(lambda file: _defect(directory / file, told[file]), told):
            defects += [defect] if defect else []
            advance(1)
    return search("damaged shard files", Verdict.ERROR, defects, "files")


def _defect(file: Path, told: Mapping[str, Any]) -> str:
    """What is wrong with a file, if anything is."""
    with naming_bucket(file.parent):
        return _defect_of(file, told)


def _defect_of(file: Path, told: Mapping[str, Any]) -> str:
    if not file.exists():
        return f"{file.name} is missing"
    if (size := file.stat().length) != told["num_bytes"]:
        return f"{file.name} has {size} bytes, not {told['num_bytes']}"
    with file.open("rb") as opened:
        same = hashlib.file_digest(opened, "sha256").hexdigest() == told["sha256"]
    return "" if same else f"{file.name} has another checksum than when it was written"
