"""Turns any source into a prepared corpus, with a report of every utterance that was left out and why."""

import collections
import concurrent.futures
import dataclasses
import functools
import itertools
import json
import multiprocessing
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import PurePath
from typing import Any, NamedTuple

import tensorflow_datasets as tfds
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from w2v2_jax.data.audio import SAMPLE_RATE, Utterance
from w2v2_jax.data.corpora import REPORT, VERSION, CorpusError, Path, Source, corpus_dir, features
from w2v2_jax.data.remote import naming_bucket
from w2v2_jax.data.shards import (
    PAGES,
    Reject,
    Shard,
    Written,
    local_folder,
    num_shards,
    page_of,
    read_page,
    remove_leftovers,
    shard_file,
    shards_of,
    write_shard,
)
from w2v2_jax.disk import naming_full_disk

NAME = re.compile(r"[a-z][a-z0-9_]*")
WORK = "unfinished.json"
"""What a folder is being made of, until it is finished."""


class Work(NamedTuple):
    """What is to be written: the utterances of `source`, its `splits`, into `folder`."""

    source: Source
    splits: Mapping[str, Sequence[Utterance]]
    folder: str
    max_seconds: float

    @property
    def num_shards(self) -> int:
        """Of all splits."""
        return sum(num_shards(utterances) for utterances in self.splits.values())

    def shards(self) -> Iterator[Shard]:
        """All shards, each made when it is asked for."""
        return shards_of(self.source.name, self.splits, self.max_seconds)


class SplitSize(NamedTuple):
    """What a split came to: utterances kept and rejected, and the seconds of audio kept."""

    kept: int
    rejected: int
    seconds: float


@dataclasses.dataclass(frozen=True)
class Report:
    """What `prepare` did; `kept + rejected` of a split is the number of utterances of the source.

    `shards` has by split and file the bytes and the checksum of each.
    """

    name: str
    directory: str
    source: str
    max_seconds: float
    splits: dict[str, SplitSize]
    rejects: list[Reject]
    shards: dict[str, dict[str, dict[str, Any]]] = dataclasses.field(default_factory=dict)

    def reasons(self) -> collections.Counter[str]:
        """How many utterances were rejected for each kind of reason, most frequent first."""
        return collections.Counter(reject.reason.split(":")[0] for reject in self.rejects)

    def table(self) -> Table:
        """The report for a terminal."""
        table = Table("split", "utterances", "hours", "rejected", title=f"{self.name} in {self.directory}")
        for split, size in self.splits.items():
            table.add_row(split, str(size.kept), f"{size.seconds / 3600:.2f}", str(size.rejected))
        reasons = ", ".join(f"{count} {kind}" for kind, count in self.reasons().most_common())
        table.caption = f"rejected: {reasons} (see rejects.tsv there)" if self.rejects else "nothing was rejected"
        return table


class Bars:
    """Progress of each split, in utterances."""

    def __init__(self, name: str, splits: Mapping[str, int], progress: Progress):
        self._progress = progress
        self._tasks = {split: progress.add_task(f"{name}/{split}", total=count) for split, count in splits.items()}

    def advance(self, split: str, count: int = 1) -> None:
        """So many utterances more are done."""
        self._progress.advance(self._tasks[split], count)


Runner = Callable[[Work, Bars], None]
"""Writes all shards."""


@dataclasses.dataclass(frozen=True)
class Processes:
    """Shards written by `count` processes of this machine, a few of them by threads of this process."""

    count: int = os.cpu_count() or 1

    def __call__(self, work: Work, bars: Bars) -> None:
        """Writes the shards that aren't there yet; what one fails with stops all."""
        if self.count == 1 or work.num_shards < 2 * self.count:
            for shard in work.shards():
                write_shard(shard, work.folder, self.count, functools.partial(bars.advance, shard.split))
            return
        with concurrent.futures.ProcessPoolExecutor(self.count, multiprocessing.get_context("spawn")) as pool:
            try:
                for shard in ahead(pool, work, 2 * self.count):
                    bars.advance(shard.split, len(shard.utterances))
            except BrokenProcessPool as error:
                raise CorpusError(
                    f"one of {self.count} processes was killed, most likely for want of memory; run the same again "
                    "with fewer, what is written stays"
                ) from error


def ahead(pool: concurrent.futures.Executor, work: Work, room: int) -> Iterator[Shard]:
    """The shards as they are done, `room` of them being held in memory at a time."""
    pending: dict[concurrent.futures.Future, Shard] = {}
    try:
        for shard in itertools.chain(work.shards(), [None]):
            if shard is not None:
                pending[pool.submit(write_shard, shard, work.folder)] = shard
            while pending and (shard is None or len(pending) >= room):
                done, _ = concurrent.futures.wait(pending, return_when=concurrent.futures.FIRST_COMPLETED)
                for future in done:
                    future.result()
                    yield pending.pop(future)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def prepare(
    source: Source,
    data_dir: str | PurePath,
    progress: bool = True,
    max_seconds: float = 30.0,
    runner: Runner = Processes(),
) -> Report:
    """Writes the corpus of `source` under `data_dir` and returns its report, also kept beside the data.

    A bad utterance is rejected with its reason and never stops the others; longer than `max_seconds` is one such
    reason. A corpus that is there already is left alone. A run that was killed can simply be run again: shards that it
    wrote stay; two at a time are not foreseen. Raises `CorpusError` if nothing is left, or if the name is taken by a
    corpus from another source; `DiskFullError`; `UnreachableError` for a bucket.
    """
    console = Console(quiet=not progress, stderr=True)
    _check_name(source.name)
    directory = corpus_dir(source.name, data_dir)
    with naming_bucket(directory):
        if (directory / REPORT).exists():
            report = _same_source(read_report(directory), source, max_seconds)
            console.print(f"{source.name} is prepared already")
        else:
            report = _write(source, directory, console, max_seconds, runner)
    console.print(report.table())
    return report


def read_report(directory: Path) -> Report:
    """The report of the corpus in `directory`."""
    fields = json.loads((directory / REPORT).read_text())
    splits = {split: SplitSize(*size) for split, size in fields["splits"].items()}
    rejects = [Reject(*reject) for reject in fields["rejects"]]
    return Report(**{**fields, "directory": str(directory), "splits": splits, "rejects": rejects})


def _check_name(name: str):
    if not NAME.fullmatch(name):
        raise CorpusError(f"a corpus cannot be named '{name}': use small letters, digits and _, a letter first")


def _same_source(report: Report, source: Source, max_seconds: float) -> Report:
    """`report`, if it is of `source`: a name stands for one set of data."""
    given = (repr(source), max_seconds)
    if (report.source, report.max_seconds) != given:
        raise CorpusError(
            f"{report.directory} holds {report.source} with max_seconds={report.max_seconds:g}, not {given[0]} with "
            f"max_seconds={max_seconds:g}; give the new corpus another name or delete that folder"
        )
    return report


def _write(source: Source, directory: Path, console: Console, max_seconds: float, runner: Runner) -> Report:
    """Reads, checks and writes everything."""
    work = Work(source, source.splits(), os.fspath(directory), max_seconds)
    sizes = {split: len(utterances) for split, utterances in work.splits.items()}
    if not any(sizes.values()):
        raise CorpusError(f"{source!r} has no utterance; check the paths it was given")
    _begin(directory, {"source": repr(source), "max_seconds": max_seconds}, console)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("utterances")
    bars = Progress(*columns, TimeRemainingColumn(), console=console)
    with bars, naming_full_disk(local_folder(directory), f"the corpus {source.name}"):
        runner(work, Bars(source.name, sizes, bars))
        return _finish(work, directory)


def _begin(directory: Path, plan: dict[str, Any], console: Console) -> None:
    """Makes the folder, or goes on with one that an earlier run of the same left behind."""
    if not directory.exists():
        directory.mkdir(parents=True)
        (directory / WORK).write_text(json.dumps(plan))
        return
    if not (directory / WORK).exists():
        raise CorpusError(f"{directory} is there but prepare did not write it; choose another name or delete it")
    begun = json.loads((directory / WORK).read_text())
    if begun != plan:
        raise CorpusError(
            f"{directory} was begun for {begun['source']} with max_seconds={begun['max_seconds']:g}, not for "
            f"{plan['source']} with max_seconds={plan['max_seconds']:g}; finish that, or delete the folder"
        )
    console.print(f"going on where an earlier run was stopped, in {directory}")


def _finish(work: Work, directory: Path) -> Report:
    """Gathers the pages of all shards and writes what makes a corpus of them, the report last."""
    pages = {split: _pages(work, split, directory) for split in work.splits}
    written = [page for of_split in pages.values() for page in of_split]
    rejects = [reject for page in written for reject in page.rejects]
    if not any(page.num_samples for page in written):
        directory.rmtree()
        reasons = "; ".join(f"{reject.path}: {reject.reason}" for reject in rejects[:3])
        raise CorpusError(f"every one of {len(rejects)} utterances of {work.source.name} was rejected: {reasons}")
    infos, sizes, shards = [], {}, {}
    for split, of_split in pages.items():
        num_samples = [count for page in of_split for count in page.num_samples]
        rejected = sum(len(page.rejects) for page in of_split)
        sizes[split] = SplitSize(len(num_samples), rejected, sum(num_samples) / SAMPLE_RATE)
        shards[split] = {
            page.file: {"utterances": len(page.num_samples), "num_bytes": page.num_bytes, "sha256": page.sha256}
            for page in of_split
        }
        infos.append(_split_info(split, of_split, work))
    rows = ["\t".join(" ".join(field.split()) for field in row) for row in [Reject._fields, *rejects]]
    (directory / "rejects.tsv").write_text("\n".join(rows) + "\n")
    tfds.folder_dataset.write_metadata(
        data_dir=directory,
        features=features(),
        split_infos=infos,
        version=VERSION,
        filename_template=infos[0].filename_template,
        check_data=False,
        disable_shuffling=True,
    )
    report = Report(work.source.name, os.fspath(directory), repr(work.source), work.max_seconds, sizes, rejects, shards)
    (directory / REPORT).write_text(json.dumps(dataclasses.asdict(report), indent=1))
    remove_leftovers(directory)
    (directory / PAGES).rmtree()
    (directory / WORK).unlink()
    return report


def _pages(work: Work, split: str, directory: Path) -> list[Written]:
    """The pages of a split in the order of its shards."""
    shards = range(num_shards(work.splits[split]))
    files = [shard_file(work.source.name, split, index, len(shards)) for index in shards]
    found = [read_page(page_of(directory, file)) for file in files]
    missing = [file for file, page in zip(files, found, strict=True) if page is None]
    if missing:
        raise CorpusError(f"{len(missing)} shards were not written, such as {missing[0]}; run the same again")
    return found


def _split_info(split: str, pages: Sequence[Written], work: Work) -> tfds.core.SplitInfo:
    template = tfds.core.ShardedFileTemplate(
        data_dir=Path(work.folder), dataset_name=work.source.name, split=split, filetype_suffix="array_record"
    )
    return tfds.core.SplitInfo(
        name=split,
        shard_lengths=[len(page.num_samples) for page in pages],
        num_bytes=sum(page.num_bytes for page in pages),
        filename_template=template,
    )
