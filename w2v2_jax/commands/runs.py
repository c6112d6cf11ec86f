"""Looking at runs: `doctor` and `plot`; and the demonstration, `demo`."""

import argparse
import json
from pathlib import Path
from typing import Any

from w2v2_jax.commands.terminal import add_command, local_folder, output_file


def add(subparsers: Any) -> None:
    """Adds the commands of this file."""
    _add_doctor(subparsers)
    _add_plot(subparsers)
    _add_demo(subparsers)


def _add_doctor(subparsers: Any) -> None:
    parser = add_command(subparsers, "doctor", doctor, "look for what is wrong with a run")
    parser.add_argument("run", type=Path, help="folder of the run")


def _add_plot(subparsers: Any) -> None:
    parser = add_command(subparsers, "plot", plot, "draw the curves of runs beside each other")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a run")
    parser.add_argument("--metrics", nargs="+", metavar="NAME", help="what of metrics.jsonl (default: what tells most)")
    parser.add_argument(
        "--output", type=output_file, default="curves.png", metavar="FILE", help="(default: curves.png)"
    )


def _add_demo(subparsers: Any) -> None:
    parser = add_command(subparsers, "demo", demo, "pretrain, fine-tune and transcribe on synthetic speech")
    parser.add_argument(
        "--quick", action="store_true", help="a minute to see that everything runs; too short to learn anything"
    )
    parser.add_argument(
        "--workdir", type=local_folder, metavar="DIR", help="where its runs go (default: runs/demo or runs/demo_quick)"
    )


def doctor(options: argparse.Namespace) -> int:
    """Prints what is wrong with a run; 1 if anything is."""
    from w2v2_jax.doctor import diagnose, report

    findings = diagnose(_rows(options.run), **_sizes(options.run))
    print(report(findings))
    return 1 if findings else 0


def plot(options: argparse.Namespace) -> int:
    """Draws the curves of runs."""
    from w2v2_jax.analysis.plots import FINETUNING_CURVES, PRETRAINING_CURVES, plot_curves

    rows = {run.name: _rows(run) for run in options.runs}
    sizes = _sizes(options.runs[0])
    metrics = options.metrics or (PRETRAINING_CURVES if sizes else FINETUNING_CURVES)
    plot_curves(rows, metrics, options.output, sizes.get("num_distractors", 0))
    print(f"Figure: {options.output}")
    return 0


def demo(options: argparse.Namespace) -> int:
    """Runs the demonstration."""
    from w2v2_jax import demo

    name, size = ("demo_quick", demo.QUICK) if options.quick else ("demo", demo.FULL)
    demo.run(options.workdir or Path("runs") / name, size)
    return 0


def _rows(run: Path) -> list[dict[str, Any]]:
    from w2v2_jax.metrics import read_rows

    if not (run / "metrics.jsonl").exists():
        raise ValueError(f"{run} is not a run: it has no metrics.jsonl; give a folder that `w2v2 train` wrote")
    return read_rows(run / "metrics.jsonl")


def _sizes(run: Path) -> dict[str, int]:
    """What fixes where the collapses of pretraining end; other tasks log nothing that is judged by it."""
    from w2v2_jax.description import build
    from w2v2_jax.tasks import Pretraining

    task = build(json.loads((run / "experiment.json").read_text(encoding="utf-8"))["with"]["task"])
    if not isinstance(task, Pretraining):
        return {}
    quantizer = task.model.quantizer
    return {
        "num_groups": quantizer.num_groups,
        "num_entries": quantizer.num_entries,
        "num_distractors": task.num_distractors,
    }
