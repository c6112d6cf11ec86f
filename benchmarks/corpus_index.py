"""How long a run takes to learn the lengths of all utterances of 60,000 hours, and how much memory.

    python benchmarks/corpus_index.py

Writes what is kept beside the sound of a shard of 1,024 utterances and links it for as many shards as 60,000 hours at
15 s have; they are in the page cache. Each set of fields is read in a process of its own. Writes
benchmarks/results/corpus_index.md.
"""

import multiprocessing
import os
import random
import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from report import RESULTS, publish

from w2v2_jax.data.corpora import INDEX, Split, Watch, index_files, packed
from w2v2_jax.data.corpora import Path as AnyPath
from w2v2_jax.data.shards import UTTERANCES

NUM_SHARDS = 60_000 * 3600 // 15 // UTTERANCES + 1
FIELDS = {
    "pretraining": ("num_samples",),
    "pretraining by languages": ("language", "num_samples"),
    "fine-tuning": ("id", "text", "num_samples"),
}


def main() -> None:
    """Measures each use."""
    with tempfile.TemporaryDirectory() as folder:
        write_index(Path(folder) / INDEX)
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, context, max_tasks_per_child=1) as pool:
            measured = [*pool.map(read, [folder] * len(FIELDS), FIELDS.values())]
    rows = [
        (use, ", ".join(fields), f"{seconds:.0f}", f"{gigabytes:.1f}")
        for (use, fields), (seconds, gigabytes) in zip(FIELDS.items(), measured, strict=True)
    ]
    text = f"{NUM_SHARDS * UTTERANCES:,} utterances in {NUM_SHARDS:,} shards, from the page cache."
    publish(RESULTS / "corpus_index.md", "Index of a corpus", text, ("use", "fields", "s", "GB of memory"), rows)


def write_index(folder: Path) -> None:
    """The index of a shard as Libri-Light's would be, under the names of all shards."""
    folder.mkdir()
    rng = random.Random(0)
    records = [
        {
            "num_samples": rng.randint(32_000, 560_000),
            "text": "",
            "speaker": f"{rng.randrange(9_000)}",
            "language": "en",
            "id": f"large/{rng.randrange(9_000)}/{rng.randrange(99_999)}/chapter_{number:04}_{rng.randrange(10**6)}",
        }
        for number in range(UTTERANCES)
    ]
    first = folder / f"train-00000-of-{NUM_SHARDS:05}.json.gz"
    first.write_bytes(packed(records))
    for number in range(1, NUM_SHARDS):
        os.link(first, folder / f"train-{number:05}-of-{NUM_SHARDS:05}.json.gz")


def read(folder: str, fields: tuple[str, ...]) -> tuple[float, float]:
    """Seconds, and gigabytes more than before at the most."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    split = Split("train", [], Watch(AnyPath(folder)), index_files(AnyPath(folder), "train"))
    assert len(split.columns(*fields)[0]) == NUM_SHARDS * UTTERANCES
    spent = time.perf_counter() - start
    return spent, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / 1e9


if __name__ == "__main__":
    main()
