"""Running experiments, killing them, and planning where they will run: `train`, `drill` and `plan`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from w2v2_jax.commands.terminal import (
    add_command,
    add_experiment,
    complain,
    local_folder,
    positive,
    show,
    table,
)


def add(subparsers: Any) -> None:
    """Adds the commands of this file."""
    _add_train(subparsers)
    _add_drill(subparsers)
    _add_plan(subparsers)


def _add_train(subparsers: Any) -> None:
    parser = add_command(subparsers, "train", train, "run an experiment, from its newest checkpoint if there is one")
    add_experiment(parser, "num_steps=100 task.model.encoder.input_dropout=0.0")
    parser.add_argument(
        "--workdir",
        type=local_folder,
        metavar="DIR",
        help="folder of the run (default: runs/ and the experiment's name)",
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    parser.add_argument("--distributed", action="store_true", help="this is one process of several, e.g. of a TPU pod")
    parser.add_argument("--compile-cache", metavar="DIR", help="keep compiled programs here: restarts are quicker")


def _add_drill(subparsers: Any) -> None:
    parser = add_command(subparsers, "drill", drill, "kill a run over and over: does it end as an unbroken one")
    add_experiment(parser, "num_steps=200 save_every=20 eval_every=50")
    parser.add_argument("--kills", type=positive, default=8, metavar="N", help="how often (default: 8)")
    parser.add_argument(
        "--workdir", type=local_folder, metavar="DIR", help="an empty folder (default: runs/NAME_drill)"
    )
    parser.add_argument("--seed", type=int, default=0, help="another seed kills at other moments")


def _add_plan(subparsers: Any) -> None:
    parser = add_command(subparsers, "plan", plan, "tell what an experiment takes on a TPU slice, without a TPU")
    add_experiment(parser, "train_data.batch_size=512")
    parser.add_argument("--topology", required=True, metavar="SLICE", help="e.g. v5e:16x16, v5e-256, v4-128, v6e:2x4")
    parser.add_argument("--mesh", metavar="AXES", help="e.g. data=64,fsdp=4 (default: as the experiment has it)")
    parser.add_argument("--search", action="store_true", help="look for a faster way; takes half an hour or more")


def train(options: argparse.Namespace) -> int:
    """Runs an experiment and shows its last metrics, or where it stands if it was told to end."""
    import jax

    from w2v2_jax.experiment_files import load_experiment
    from w2v2_jax.metrics import read_rows
    from w2v2_jax.preemption import Preempted
    from w2v2_jax.processes import meet
    from w2v2_jax.train import train

    if options.compile_cache:
        jax.config.update("jax_compilation_cache_dir", options.compile_cache)
    if options.distributed:
        meet()
    experiment = _changed(load_experiment(options.experiment), options.set)
    workdir = options.workdir or Path("runs") / experiment.name
    try:
        train(experiment, workdir, options.quiet)
    except Preempted as preempted:
        complain(str(preempted))
        return 0
    if jax.process_index() == 0:  # the others write no metrics
        show(table(str(workdir), read_rows(workdir / "metrics.jsonl")[-1]))
    return 0


def drill(options: argparse.Namespace) -> int:
    """Shows how an experiment fares that is killed over and over; 1 if it doesn't end as the unbroken one."""
    import jax

    from w2v2_jax.drill import Run, drill, summary, table
    from w2v2_jax.experiment_files import load_experiment

    # The accelerator is for the runs.
    jax.config.update("jax_platforms", "cpu")
    experiment = _changed(load_experiment(options.experiment), options.set)
    settings = ["--set", *options.set] if options.set else []
    command = [sys.executable, "-m", "w2v2_jax.cli", "train", options.experiment, *settings, "--workdir"]
    workdir = options.workdir or Path("runs") / f"{experiment.name}_drill"
    run = Run(command, experiment.num_steps, experiment.eval_every)
    outcome = drill(run, workdir, options.kills, options.seed)
    show(table(outcome))
    print(summary(outcome))
    return 1 if outcome.difference else 0


def plan(options: argparse.Namespace) -> int:
    """Shows what an experiment would take on a slice of a TPU pod; says by its status whether it would fit."""
    import dataclasses

    from w2v2_jax.experiment_files import load_experiment
    from w2v2_jax.planning import report
    from w2v2_jax.planning.chips import parse_slice
    from w2v2_jax.planning.compiler import use_no_accelerator
    from w2v2_jax.planning.plan import parse_mesh, plan
    from w2v2_jax.planning.search import rank, search

    use_no_accelerator()
    slice_ = parse_slice(options.topology)
    experiment = _changed(load_experiment(options.experiment), options.set)
    if options.mesh:
        experiment = dataclasses.replace(experiment, mesh=parse_mesh(options.mesh, slice_.num_chips))
    coming = search(experiment, slice_) if options.search else map(plan, [experiment], [slice_])
    plans = report.collect(coming, f"{experiment.name} for {slice_}")
    if options.search:
        show(report.search_table(plans))
    best = min(plans, key=rank)
    show(report.plan_table(best))
    show(report.ASSUMPTIONS)
    return 0 if best.fits else 1


def _changed(experiment: Any, assignments: Sequence[str]) -> Any:
    """The experiment with other settings, once it is known that they make a model."""
    import jax

    from w2v2_jax.overrides import override, parse_assignment

    changed = override(experiment, dict(map(parse_assignment, assignments)))
    if changed is experiment:
        return experiment
    try:
        jax.eval_shape(changed.task.init, jax.random.key(changed.seed))
    except (TypeError, AttributeError, ArithmeticError) as error:
        raise ValueError(f"no model can be made with {' '.join(assignments)}: {error}") from error
    return changed
