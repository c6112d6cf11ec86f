"""How much audio a core makes ready for training, from FLAC shards to batches.

    python benchmarks/input_pipeline.py [--minutes N] [--seconds N] [--workers N ...] [--peers torch tf.data]

Prepares N minutes (20) of a corpus as `w2v2 prepare` does: sentences of eSpeak NG joined to records of 12 to 17 s, as
long as LibriSpeech's. Synthetic speech compresses about as speech does; noise would not. Decoding alone, the limit, and
each setting of our pipeline then run for some seconds (8); what counts are the processor seconds of all threads and
processes, so that other work on the machine disturbs little. The files are in the page cache: what a disk or a bucket
adds is not in it. `--peers` measures what others would write for the same clips from the same FLAC, see input_peers.py;
they need datasets and torch, or tensorflow-cpu. Prints the table, what a pod needs beside it, and writes
benchmarks/results/input_pipeline.md. Needs the extra `demo`.
"""

import argparse
import contextlib
import dataclasses
import functools
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from input_peers import write
from report import RESULTS, publish

from w2v2_jax.data.audio import SAMPLE_RATE, Recording, Utterance, decode_record
from w2v2_jax.data.buckets import PercentileBuckets
from w2v2_jax.data.corpora import corpus_dir
from w2v2_jax.data.pipeline import Clips, Transcribed
from w2v2_jax.data.prepare import Report, prepare
from w2v2_jax.data.records import Corpus
from w2v2_jax.data.sources.synthetic import ESpeak
from w2v2_jax.data.text import LETTERS

MIN_SECONDS, MAX_SECONDS = 12, 17
BATCH = 16
PEERS = {"torch": ("datasets and DataLoader", 0), "tf.data": ("tf.data", 4)}
"""What others are called in the table, and their threads where they have no processes."""
POD, HOURS_A_SECOND, HOSTS = "v4-128", 24.7, 16
"""What pretraining BASE takes there by benchmarks/results/plans.md, an estimate, and how many hosts read for it."""


@dataclasses.dataclass(frozen=True)
class JoinedSentences:
    """Records of several sentences in one voice, in the split `train`."""

    minutes: float
    name: str = "joined"

    def splits(self) -> dict[str, Sequence[Utterance]]:
        """The records, not spoken yet."""
        sentences = ESpeak(train_minutes=self.minutes, num_speakers=4).splits()["train"]
        return {"train": list(_joined(sorted(sentences, key=lambda each: each.speaker)))}


def _joined(sentences: Sequence[Utterance]) -> Iterator[Utterance]:
    """Sentences in their order, as many as a record of `MIN_SECONDS` takes."""
    start, seconds = 0, 0.0
    for i, sentence in enumerate(sentences):
        seconds += len(sentence.text) / 14
        if seconds >= MIN_SECONDS + 1:
            parts = tuple(sentences[start : i + 1])
            text = " ".join(part.text for part in parts)
            yield Utterance(parts[0].id, parts[0].path, functools.partial(_read, parts), text, parts[0].speaker, "en")
            start, seconds = i + 1, 0.0


def _read(parts: tuple[Utterance, ...], max_seconds: float) -> Recording:
    return Recording(np.concatenate([part.read(max_seconds).waveform for part in parts]))


class Measured(NamedTuple):
    """Hours of audio taken from a pipeline, in so many seconds and processor seconds."""

    hours: float
    seconds: float
    processor_seconds: float


def main() -> None:
    """Measures every setting."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=20, help="of the corpus")
    parser.add_argument("--seconds", type=float, default=8, help="that each setting runs")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2], help="processes; 0 is threads alone")
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=[], help="to be measured as well")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the table")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as data_dir:
        source = JoinedSentences(options.minutes)
        report = prepare(source, data_dir, progress=False)
        size = sum(path.stat().st_size for path in Path(corpus_dir(source.name, data_dir)).glob("*array_record*"))
        hours = report.splits["train"].seconds / 3600
        corpus = Corpus(source.name, "train", data_dir)
        rows = [row_of("decoding alone", "one", measure(decoded(corpus), options.seconds))]
        for name, dataset in settings(corpus, options.workers):
            processes = f"{dataset.num_workers} workers" if dataset.num_workers else "threads alone"
            # Closed, so that nothing of it reads ahead while the next one is measured.
            with contextlib.closing(dataset.batches(seed=0)) as batches:
                samples = (int(batch.num_samples.sum()) for batch in batches)
                rows.append(row_of(name, processes, measure(samples, options.seconds)))
        for peer in options.peers:
            rows += measure_peer(peer, corpus, Path(data_dir), options)
    headers = ("pipeline", "processes", "h of audio a core-second", "h a second", "cores busy", "cores a host needs")
    publish(options.results / "input_pipeline.md", "Input pipeline", text(hours, size, report), headers, rows)


def decoded(corpus: Corpus) -> Iterator[int]:
    """Whole records one by one, by libsndfile: more than this can't come out of a pipeline that uses it."""
    records = corpus.records()
    for record in itertools.cycle([records[index] for index in range(len(records))]):
        yield len(decode_record(record, 0, np.empty(record["num_samples"], np.int16)))


def settings(corpus: Corpus, numbers_of_workers: Sequence[int]) -> Iterator[tuple[str, Clips | Transcribed]]:
    """Names and datasets: as in experiments.pretrain.base_960h and large_lv60, and as in fine-tuning."""
    for workers in numbers_of_workers:
        yield "Clips", Clips(corpus, BATCH, num_samples=250_000, normalise=False, num_workers=workers)
        yield "Clips, normalised", Clips(corpus, BATCH, num_samples=250_000, normalise=True, num_workers=workers)
        buckets = PercentileBuckets(BATCH * 300_000)
        yield "Transcribed", Transcribed(corpus, LETTERS, buckets, normalise=False, num_workers=workers)


def measure_peer(peer: str, corpus: Corpus, folder: Path, options: argparse.Namespace) -> Iterator[tuple[str, ...]]:
    """What others need for the clips of a corpus, with each number of workers."""
    records = corpus.records()
    write(peer, [records[index]["audio"] for index in range(len(records))], folder)
    name, threads = PEERS[peer]
    ways = {threads: f"{threads} threads"} if threads else {n: f"{n} workers" if n else "one" for n in options.workers}
    for workers, processes in ways.items():
        command = [sys.executable, Path(__file__).with_name("input_peers.py"), peer, folder, workers, options.seconds]
        done = subprocess.run([*map(str, command)], stdout=subprocess.PIPE, text=True, check=True)
        yield row_of(name, processes, Measured(*json.loads(done.stdout.splitlines()[-1])))


def row_of(name: str, processes: str, measured: Measured) -> tuple[str, ...]:
    """A setting, measured."""
    hours, wall, processor = measured
    needed = HOURS_A_SECOND / HOSTS / (hours / processor)
    numbers = (f"{hours / processor:.2f}", f"{hours / wall:.2f}", f"{processor / wall:.1f}", f"{needed:.2f}")
    return (name, processes, *numbers)


def measure(batches: Iterator[int], seconds: float) -> Measured:
    """Takes batches, of so many samples each, for so many seconds, once what is read ahead has been used up."""
    for _ in range(8):
        next(batches)
    start, processor, samples = time.perf_counter(), processor_seconds(), 0
    while time.perf_counter() - start < seconds:
        samples += next(batches)
    return Measured(samples / SAMPLE_RATE / 3600, time.perf_counter() - start, processor_seconds() - processor)


def processor_seconds() -> float:
    """Of this process and its children, all threads."""
    total, ours = 0, os.getpid()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, _, fields = path.read_text().partition(" ")
        except (FileNotFoundError, ProcessLookupError):  # it ended meanwhile
            continue
        numbers = fields.rpartition(")")[2].split()
        if ours in (int(pid), int(numbers[1])):
            total += int(numbers[11]) + int(numbers[12])
    return total / os.sysconf("SC_CLK_TCK")


def text(hours: float, size: int, report: Report) -> str:
    """What was measured, and what is needed."""
    records = report.splits["train"].kept
    return (
        f"{records} records of {3600 * hours / records:.0f} s on average, joined from eSpeak NG's sentences, "
        f"{size / 1e6 / hours:.0f} MB of FLAC an hour, from the page cache; batches of {BATCH}. "
        f"Audio without padding counts. What a pod needs: BASE on {POD} takes {HOURS_A_SECOND} h a second by its "
        f"plan, {HOURS_A_SECOND / HOSTS:.2f} on each of {HOSTS} hosts."
    )


if __name__ == "__main__":
    main()
