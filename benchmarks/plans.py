"""What the published recipes would take on slices of 64 to 256 TPU chips, without a TPU.

    pip install '.[tpu-plan]'
    python benchmarks/plans.py [SLICE ...]

Compiles the train step of BASE-960, LARGE-960 and LARGE LV-60k for each slice (by default all below; minutes each) and
writes a table to benchmarks/results/plans.md, which grows with each plan. Steps are those of the experiments; only the
batch is changed where it can't be cut over 256 chips. All times are static estimates, see w2v2_jax/planning.
"""

import datetime
import importlib.metadata
import os
import sys
import time
from pathlib import Path

from w2v2_jax.data.audio import SAMPLE_RATE
from w2v2_jax.experiment_files import load_experiment
from w2v2_jax.overrides import override
from w2v2_jax.planning.chips import parse_slice
from w2v2_jax.planning.compiler import use_no_accelerator
from w2v2_jax.planning.plan import Plan, plan
from w2v2_jax.planning.report import ASSUMPTIONS, mesh_text

EXPERIMENTS = ("base_960h", "large_960h", "large_lv60")
TWO_EACH = {"train_data.batch_size": 512, "task.sub_batch_size": 2}
SLICES = {"v4-128": {}, "v5e-256": TWO_EACH, "v5p-128": {}, "v6e-256": TWO_EACH}
"""Settings by slice: 320 and 384 clips a step go over 64 chips, over 256 chips go 512."""

RESULTS = Path(__file__).parent / "results" / "plans.md"
HEAD = (
    "experiment", "slice", "mesh", "clips a step", "a chip", "HBM GiB", "collectives MB", "model TFLOP",
    "step ms", "audio h/s", "MFU", "days", "compiled in s",
)  # fmt: skip


def main(*slices: str) -> None:
    """Plans all experiments for the slices and writes the table."""
    use_no_accelerator()
    sys.path.insert(0, os.getcwd())
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("jax", "libtpu", "w2v2_jax"))
    command = " ".join(["python benchmarks/plans.py", *slices])
    intro = f"# Plans for TPU slices\n\n`{command}`, {datetime.date.today()}, {versions}.\n\n{ASSUMPTIONS}\n"
    RESULTS.write_text("\n".join([intro, _row(HEAD), _row(["---"] * len(HEAD)), ""]))
    for name in slices or SLICES:
        for experiment in EXPERIMENTS:
            start = time.monotonic()
            found = plan(
                override(load_experiment(f"experiments.pretrain.{experiment}"), SLICES[name]), parse_slice(name)
            )
            row = _row([*_cells(found, name), f"{time.monotonic() - start:.0f}"])
            print(row, flush=True)
            with RESULTS.open("a") as file:
                print(row, file=file)


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
    main(*sys.argv[1:])
