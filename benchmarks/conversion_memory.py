"""Peak memory of converting a network of a billion parameters, each conversion in a process of its own.

    python benchmarks/conversion_memory.py [PRESET] [FOLDER]

Writes XLS-R 1B with random weights (nothing is downloaded) as a folder of transformers in shards of 1 GB, converts it
into our checkpoint and that into every other format, and prints a table of what the kernel reports as each process's
peak resident set. The limit to hold against is the network itself, as it has to be in memory to be saved as one
checkpoint, and one shard.
"""

import functools
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import flax.linen as nn
import numpy as np
from flax import traverse_util

from w2v2_jax import presets
from w2v2_jax.convert.card import Card
from w2v2_jax.convert.formats import HUGGINGFACE, write_weights
from w2v2_jax.convert.parameters import abstract_params
from w2v2_jax.convert.safetensors_files import MAX_SHARD_BYTES
from w2v2_jax.masking import TIME_MASK

CONVERSIONS = (
    ("transformers", "ours", "source", "ours"),
    ("ours", "transformers", "ours", "huggingface"),
    ("ours", "fairseq", "ours", "fairseq"),
    ("fairseq", "ours", "fairseq/model.pt", "again"),
)
TO = {"huggingface": "huggingface", "fairseq": "fairseq", "ours": "ours", "again": "ours"}


def main(preset: str = "xls_r_1b", folder: str | None = None) -> None:
    """Writes the network, converts it, prints the table."""
    with tempfile.TemporaryDirectory(dir=folder) as work:
        size = write_source(getattr(presets, preset)(), Path(work) / "source")
        print(
            f"{preset}: {size / 4e6:,.0f} M parameters, {size / 1e9:.2f} GB; "
            f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
        )
        print(f"limit: the network and one shard, {(size + MAX_SHARD_BYTES) / 1e9:.2f} GB\n", flush=True)
        print("| from | to | peak memory | seconds |\n|---|---|---|---|")
        for before, after, source, target in CONVERSIONS:
            peak, seconds = convert(Path(work) / source, Path(work) / target, TO[target])
            print(f"| {before} | {after} | {peak / 1e9:.2f} GB | {seconds:.0f} |", flush=True)


def write_source(model: presets.PretrainingModel, folder: Path) -> int:
    """A folder of transformers with random weights; the number of their bytes."""
    shapes = traverse_util.flatten_dict(nn.unbox(abstract_params(model)), sep="/")
    rng = np.random.default_rng(0)

    @functools.lru_cache(maxsize=1)
    def parameter(path: str) -> np.ndarray:
        return rng.standard_normal(shapes[path].shape, np.float32)

    write_weights(Card(model, normalise=True, time_mask=TIME_MASK), parameter, folder, HUGGINGFACE)
    return sum(leaf.size * 4 for leaf in shapes.values())


def convert(source: Path, target: Path, to: str) -> tuple[int, float]:
    """Peak resident set in bytes and wall-clock seconds of one `w2v2 convert`."""
    target = target / "model.pt" if to == "fairseq" else target
    start = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "w2v2_jax.cli", "convert", source, target, "--to", to], stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"converting {source} to {to} failed")
    return usage.ru_maxrss * 1024, time.monotonic() - start


if __name__ == "__main__":
    main(*sys.argv[1:])
