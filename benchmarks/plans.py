"""What the published recipes would take on slices of 64 to 256 TPU chips, without a TPU.

    pip install '.[tpu-plan]'
    python benchmarks/plans.py [--processes N] [SLICE ...]

Compiles the train step of BASE-960, LARGE-960 and LARGE LV-60k for each slice (by default all below; minutes each, one
after the other unless --processes is given) and writes a table to benchmarks/results/plans.md, which grows with each
plan. Steps are those of the experiments; 16 chips share a copy of the state, and the batch is changed where it can't be
cut over 256 chips. All times are static estimates, see w2v2_jax/planning.
"""

import argparse
import datetime
import importlib.metadata
import multiprocessing
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from w2v2_jax.data.audio import SAMPLE_RATE
from w2v2_jax.experiment_files import load_experiment
from w2v2_jax.overrides import override
from w2v2_jax.planning.chips import parse_slice
from w2v2_jax.planning.compiler import use_no_accelerator
from w2v2_jax.planning.plan import Plan, plan
from w2v2_jax.planning.report import ASSUMPTIONS, mesh_text
from w2v2_jax.sharding import MeshShape

EXPERIMENTS = ("base_960h", "large_960h", "large_lv60")
SHARED = {"mesh": MeshShape(fsdp=16)}
TWO_EACH = SHARED | {"train_data.batch_size": 512, "task.sub_batch_size": 2}
SLICES = {"v4-128": SHARED, "v5e-256": TWO_EACH, "v5p-128": SHARED, "v6e-256": TWO_EACH}
"""Settings by slice: 320 and 384 clips a step go over 64 chips, over 256 chips go 512."""

RESULTS = Path(__file__).parent / "results" / "plans.md"
HEAD = (
    "experiment", "slice", "mesh", "clips a step", "a chip", "HBM GiB", "collectives MB", "model TFLOP",
    "step ms", "audio h/s", "MFU", "days", "compiled in s",
)  # fmt: skip


def main() -> None:
    """Plans all experiments for the slices and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("slices", nargs="*", metavar="SLICE", help=f"default: {' '.join(SLICES)}")
    parser.add_argument("--processes", type=int, default=1, help="plans made at a time, each takes 3 GB of memory")
    options = parser.parse_args()
    if unknown := ", ".join(sorted({*options.slices} - SLICES.keys())):
        parser.error(f"there are no settings for {unknown}; give some of {', '.join(SLICES)}")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("jax", "libtpu", "w2v2_jax"))
    command = " ".join(["python benchmarks/plans.py", *sys.argv[1:]])
    intro = f"# Plans for TPU slices\n\n`{command}`, {datetime.date.today()}, {versions}.\n\n{ASSUMPTIONS}\n"
    RESULTS.write_text("\n".join([intro, _row(HEAD), _row(["---"] * len(HEAD)), ""]))
    wanted = [(name, experiment) for name in options.slices or SLICES for experiment in EXPERIMENTS]
    # Each in a process of its own: the compiler keeps what a plan took.
    with ProcessPoolExecutor(options.processes, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
        for row in pool.map(planned, *zip(*wanted, strict=True)):
            print(row, flush=True)
            with RESULTS.open("a") as file:
                print(row, file=file)


def planned(name: str, experiment: str) -> str:
    """The row of an experiment on a slice."""
    use_no_accelerator()
    sys.path.insert(0, os.getcwd())
    start = time.monotonic()
    settings = override(load_experiment(f"experiments.pretrain.{experiment}"), SLICES[name])
    return _row([*_cells(plan(settings, parse_slice(name)), name), f"{time.monotonic() - start:.0f}"])


def _cells(plan: Plan, name: str) -> list[str]:
    setup = [
        plan.experiment.name,
        f"{name} ({plan.slice.num_chips} chips)",
        mesh_text(plan),
        f"{plan.rows} x {plan.length / SAMPLE_RATE:.1f} s",
        f"{plan.rows / plan.slice.num_chips:g}",
        f"{plan.memory.peak / 2**30:.2f}",
    ]
    if not plan.fits:
        return [*setup, "", f"{plan.model_flops / 1e12:.0f}", "doesn't fit", "", "", ""]
    return [
        *setup,
        f"{sum(each.num_bytes for each in plan.cost.collectives) / 1e6:.0f}",
        f"{plan.model_flops / 1e12:.0f}",
        f"{plan.step_seconds * 1e3:.0f}",
        f"{plan.throughput:.1f}",
        f"{plan.mfu:.1%}",
        f"{plan.days:.2f}",
    ]


def _row(cells: list[str] | tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
