"""A whole corpus looked at, before anything is launched on it."""

import functools
import time
from collections.abc import Sequence
from pathlib import PurePath
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from w2v2_jax.data.audio import SAMPLE_RATE
from w2v2_jax.experiment import Experiment
from w2v2_jax.preflight.audio_checks import audio_checks
from w2v2_jax.preflight.batching import Batching, check_batches, feeding_checks, vocabulary_checks
from w2v2_jax.preflight.checks import Check, Verdict
from w2v2_jax.preflight.corpus import Part, index_check, shard_check
from w2v2_jax.preflight.leakage import Severity, leakage_checks
from w2v2_jax.preflight.scan import Scanned, scan
from w2v2_jax.preflight.text_checks import Labels, length_check, transcript_checks


class Inspection(NamedTuple):
    """What a corpus was found to be: what is known of each record, the checks, and how quickly it was decoded."""

    scanned: Sequence[Scanned]
    checks: Sequence[Check]
    utterances_per_second: float


def inspect(
    name: str, parts: Sequence[Part], data_dir: str | PurePath, labels: Labels, speakers: Severity
) -> Inspection:
    """Reads and decodes every record of the `parts` of a corpus, with progress on standard error.

    `labels` says how long sound has to be for a text, `speakers` how bad it is if voices of test are in training.
    """
    scanned: list[Scanned] = []
    with _bars() as progress:
        files = progress.add_task("shard files", total=None)
        tasks = {part.split: progress.add_task(f"{name}/{part.split}", total=len(part.records)) for part in parts}
        shards = shard_check(name, [*tasks], data_dir, functools.partial(progress.advance, files))
        began = time.monotonic()
        for part in parts:
            scanned += scan(part, functools.partial(progress.advance, tasks[part.split]))
        took = time.monotonic() - began
    checks = [
        shards,
        index_check(parts),
        *audio_checks(scanned),
        *transcript_checks(scanned),
        length_check(scanned, labels),
        *leakage_checks(scanned, speakers),
        _pace(scanned, took),
    ]
    return Inspection(scanned, checks, len(scanned) / took)


def inspect_batches(experiment: Experiment, hosts: int) -> Batching:
    """What `hosts` processes get of an experiment's data, with progress on standard error."""
    with _bars() as progress:
        task = progress.add_task(f"steps of {hosts} processes", total=None)
        return check_batches(experiment, hosts, functools.partial(progress.advance, task))


def experiment_checks(experiment: Experiment, batching: Batching, inspection: Inspection) -> list[Check]:
    """What was found of an experiment's batches, and of its vocabulary and appetite by the corpus as it is."""
    return [
        *vocabulary_checks(experiment.train_data, inspection.scanned),
        *batching.checks,
        *feeding_checks(batching, inspection.utterances_per_second),
    ]


def _pace(scanned: Sequence[Scanned], took: float) -> Check:
    hours = sum(each.sound.num_samples for each in scanned) / SAMPLE_RATE / 3600
    told = "whole utterances, on this machine alone"
    return Check("read and decoded", Verdict.INFO, hours / took, "h of audio a second", (told,))


def _bars() -> Progress:
    """A bar a task on standard error, gone when all is done."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    return Progress(*columns, console=Console(stderr=True), transient=True)
