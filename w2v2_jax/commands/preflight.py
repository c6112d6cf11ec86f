"""Before a launch: `preflight` proves that a corpus is sound, and that no process of a run would wait for another."""

import argparse
from pathlib import Path
from typing import Any

from w2v2_jax.commands.terminal import add_command, add_data_dir, complain, local_folder, output_file, positive, show


def add(subparsers: Any) -> None:
    """Adds the command of this file."""
    parser = add_command(subparsers, "preflight", preflight, "prove that a corpus is sound before a run on it")
    parser.add_argument("corpus", type=_corpus, metavar="DATASET[/SPLIT]", help="e.g. espeak, or espeak/train")
    add_data_dir(parser)
    parser.add_argument("--experiment", metavar="NAME", help="check its vocabulary and its batches too")
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="PATH=VALUE", help="change its settings, as for train"
    )
    parser.add_argument(
        "--hosts", type=positive, default=1, metavar="N", help="processes of the run, e.g. hosts of a pod (default: 1)"
    )
    parser.add_argument(
        "--same-speakers", action="store_true", help="voices of test that are in training are a warning, not an error"
    )
    parser.add_argument(
        "--workdir", type=local_folder, metavar="DIR", help="where the figure goes (default: runs/DATASET_preflight)"
    )
    parser.add_argument("--output", type=output_file, metavar="FILE", help="write all that was found as JSON")


def _corpus(text: str) -> tuple[str, str]:
    name, slash, split = text.partition("/")
    if not name or bool(slash) != bool(split):
        raise argparse.ArgumentTypeError(f"{text!r} should be DATASET or DATASET/SPLIT, e.g. espeak or espeak/test")
    return name, split


def preflight(options: argparse.Namespace) -> int:
    """Checks a corpus, and an experiment's batches, and shows what was found; 1 if anything is an error."""
    from w2v2_jax.data.corpora import default_data_dir
    from w2v2_jax.preflight import report
    from w2v2_jax.preflight.corpus import open_parts
    from w2v2_jax.preflight.durations import plot_durations
    from w2v2_jax.preflight.inspection import experiment_checks, inspect
    from w2v2_jax.preflight.leakage import NEW_SPEAKERS, SAME_SPEAKERS
    from w2v2_jax.preflight.sizes import seconds_of, sizes
    from w2v2_jax.preflight.text_checks import PAPER

    name, split = options.corpus
    data_dir = options.data_dir or default_data_dir()
    parts = open_parts(name, split, data_dir)
    workdir = options.workdir or Path("runs") / f"{name}_preflight"
    workdir.mkdir(parents=True, exist_ok=True)
    speakers = SAME_SPEAKERS if options.same_speakers else NEW_SPEAKERS
    if options.experiment:
        experiment, labels, batching = _experiment(options)
        found = inspect(name, parts, data_dir, labels, speakers)
        checks, edges = [*found.checks, *experiment_checks(experiment, batching, found)], batching.edges
    elif options.set:
        raise ValueError("--set changes settings of an experiment; give it with --experiment")
    else:
        found = inspect(name, parts, data_dir, PAPER, speakers)
        checks, edges = found.checks, ()

    title = "/".join(filter(None, options.corpus))
    figure = workdir / f"durations_{'_'.join(filter(None, options.corpus))}.png"
    plot_durations(figure, seconds_of(found.scanned), edges, title)
    if options.output:
        given = {"corpus": title, "experiment": options.experiment or "", "hosts": options.hosts}
        report.write_json(options.output, sizes(found.scanned), checks, figure, **given)
    show(report.size_table(title, sizes(found.scanned)))
    show(report.check_table("Checks", checks))
    print(report.listing(checks), end="")
    print(f"Figure: {figure}")
    return 0 if report.is_sound(checks) else 1


def _experiment(options: argparse.Namespace) -> tuple[Any, Any, Any]:
    """The experiment, its labels, and what was found of its batches; what it would end with is told at once."""
    import jax

    from w2v2_jax.experiment_files import load_experiment
    from w2v2_jax.overrides import override, parse_assignment
    from w2v2_jax.preflight.batching import check_kinds, labels_of
    from w2v2_jax.preflight.checks import Verdict
    from w2v2_jax.preflight.inspection import inspect_batches

    # The accelerator is for the run.
    jax.config.update("jax_platforms", "cpu")
    experiment = override(load_experiment(options.experiment), dict(map(parse_assignment, options.set)))
    check_kinds(experiment)
    batching = inspect_batches(experiment, options.hosts)
    for check in batching.checks:
        if check.verdict == Verdict.ERROR:
            complain(f"{check.name}: {check.cases[0]}")
    return experiment, labels_of(experiment), batching
