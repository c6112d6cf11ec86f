"""Turns any source into a prepared corpus, with a report of every utterance that was left out and why."""

import collections
import concurrent.futures
import dataclasses
import functools
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePath
from typing import Any, NamedTuple, TypeVar

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from w2v2_jax.data.audio import SAMPLE_RATE, AudioError, Utterance, check_duration, encode_flac
from w2v2_jax.data.corpora import CorpusError, Path, Shard, Source, SpeechCorpus, corpus_dir

SHARD_BYTES = 200_000_000  # TFDS holds one shard in memory while it writes it
NAME = re.compile(r"[a-z][a-z0-9_]*")

Item = TypeVar("Item")
Result = TypeVar("Result")


class Reject(NamedTuple):
    """An utterance that was left out; `reason` is `kind: detail`."""

    split: str
    id: str
    path: str
    reason: str


class SplitSize(NamedTuple):
    """What a split came to: utterances kept and rejected, and the seconds of audio kept."""

    kept: int
    rejected: int
    seconds: float


@dataclasses.dataclass(frozen=True)
class Report:
    """What `prepare` did; `kept + rejected` of a split is the number of utterances of the source."""

    name: str
    directory: str
    source: str
    max_seconds: float
    splits: dict[str, SplitSize]
    rejects: list[Reject]

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


def prepare(
    source: Source,
    data_dir: str | PurePath,
    progress: bool = True,
    max_seconds: float = 30.0,
    workers: int = os.cpu_count() or 1,
) -> Report:
    """Writes the corpus of `source` under `data_dir` and returns its report, also kept beside the data.

    A bad utterance is rejected with its reason and never stops the others; longer than `max_seconds` is one such
    reason. A corpus that is there already is left alone. The folder gets its final name last, so a run that was
    killed leaves nothing half written behind and can simply be run again; two at a time are not foreseen. Raises
    `CorpusError` if nothing is left, or if the name is taken by a corpus from another source.
    """
    console = Console(quiet=not progress, stderr=True)
    _check_name(source.name)
    directory = corpus_dir(source.name, data_dir)
    if (directory / "report.json").exists():
        report = _same_source(read_report(directory), source, max_seconds)
        console.print(f"{source.name} is prepared already")
    else:
        report = _write(source, directory, console, max_seconds, workers)
    console.print(report.table())
    return report


def read_report(directory: Path) -> Report:
    """The report of the corpus in `directory`."""
    fields = json.loads((directory / "report.json").read_text())
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


def _write(source: Source, directory: Path, console: Console, max_seconds: float, workers: int) -> Report:
    """Reads, checks and writes everything; the work is done while the builder pulls the shards."""
    if directory.exists():
        raise CorpusError(f"{directory} is there but prepare did not write it; choose another name or delete it")
    for leftover in directory.parent.glob(f"incomplete.*_{directory.name}"):
        console.print(f"removing {leftover.name}, left behind by a run that was stopped")
        leftover.rmtree()
    splits = {split: _distinct(utterances) for split, utterances in source.splits().items()}
    if not any(splits.values()):
        raise CorpusError(f"{source!r} has no utterance; check the paths it was given")
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("utterances")
    with Progress(*columns, TimeRemainingColumn(), console=console) as bars:
        run = _Run(source, directory, max_seconds, workers, bars)
        shards = {split: run.shards(split, utterances) for split, utterances in splits.items()}
        corpus = SpeechCorpus(source.name, os.fspath(directory.parent.parent), shards, run.finish)
        corpus.download_and_prepare(file_format="array_record")
    return read_report(directory)


@dataclasses.dataclass
class _Run:
    """The bookkeeping of one `prepare`: what was kept and what was rejected so far."""

    source: Source
    directory: Path
    max_seconds: float
    workers: int
    bars: Progress
    kept: dict[str, list[int]] = dataclasses.field(default_factory=dict)
    rejects: list[Reject] = dataclasses.field(default_factory=list)

    def shards(self, split: str, utterances: Sequence[Utterance]) -> list[Shard]:
        """Functions that read a shard each, of so few utterances that the longest allowed would not overfill it."""
        self.kept[split] = []
        bar = self.bars.add_task(f"{self.source.name}/{split}", total=len(utterances))
        size = max(1, int(SHARD_BYTES / (2 * SAMPLE_RATE * self.max_seconds)))
        starts = range(0, len(utterances), size)
        return [functools.partial(self.records, split, bar, utterances[start : start + size]) for start in starts]

    def records(self, split: str, bar: int, utterances: Sequence[Utterance]) -> Iterator[tuple[str, dict[str, Any]]]:
        """The records of the utterances that can be read, with their ids."""
        for record in _in_order(functools.partial(_record, split, self.max_seconds), utterances, self.workers):
            self.bars.advance(bar)
            if isinstance(record, Reject):
                self.rejects.append(record)
            else:
                self.kept[split].append(record["num_samples"])
                yield record["id"], record

    def finish(self, folder: Path):
        """Writes the report and the rejects into the folder of the shards."""
        if not any(self.kept.values()):
            reasons = "; ".join(f"{reject.path}: {reject.reason}" for reject in self.rejects[:3])
            raise CorpusError(
                f"every one of {len(self.rejects)} utterances of {self.source.name} was rejected: {reasons}"
            )
        rejected = collections.Counter(reject.split for reject in self.rejects)
        sizes = {
            split: SplitSize(len(lengths), rejected[split], sum(lengths) / SAMPLE_RATE)
            for split, lengths in self.kept.items()
        }
        report = Report(self.source.name, str(self.directory), repr(self.source), self.max_seconds, sizes, self.rejects)
        (folder / "report.json").write_text(json.dumps(dataclasses.asdict(report), indent=1))
        rows = ["\t".join(" ".join(field.split()) for field in row) for row in [Reject._fields, *self.rejects]]
        (folder / "rejects.tsv").write_text("\n".join(rows) + "\n")


def _distinct(utterances: Sequence[Utterance]) -> list[Utterance]:
    """`utterances`, where one whose id was seen before is replaced by one that will be rejected for it."""
    seen = collections.Counter[str]()
    distinct = []
    for utterance in utterances:
        twice = functools.partial(_fail, f"duplicate: the id {utterance.id} occurs before")
        distinct.append(utterance._replace(read=twice) if seen[utterance.id] else utterance)
        seen[utterance.id] += 1
    return distinct


def _fail(reason: str, max_seconds: float):
    raise AudioError(reason)


def _record(split: str, max_seconds: float, utterance: Utterance) -> dict[str, Any] | Reject:
    """The record of one utterance, or why there is none."""
    try:
        waveform, phones = utterance.read(max_seconds)
        check_duration(len(waveform) / SAMPLE_RATE, max_seconds)
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
        return Reject(split, utterance.id, utterance.path, str(error))
    except Exception as error:  # one file in a million must not end a run of days: it is reported instead
        return Reject(split, utterance.id, utterance.path, f"{type(error).__name__}: {error}")


def _in_order(function: Callable[[Item], Result], items: Sequence[Item], workers: int) -> Iterator[Result]:
    """`map` on threads (decoding, resampling and FLAC release the GIL), a bounded number of items ahead."""
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        ahead = collections.deque[concurrent.futures.Future]()
        for item in items:
            ahead.append(pool.submit(function, item))
            if len(ahead) > 4 * workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
