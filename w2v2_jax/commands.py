"""What each command does, given its options: one call of the library, then a table.

Every function imports what it needs when it runs, so that `w2v2 --help` answers at once.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

TARGETS = ("ours", "huggingface", "fairseq", "torchaudio")
"""What `w2v2 convert` writes."""

FAILED = 2
"""The exit status where something is wrong with what was given."""


def complain(message: str) -> None:
    """One line on standard error."""
    print(f"w2v2: {' '.join(message.splitlines())}", file=sys.stderr)


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
        _show(_table(str(workdir), read_rows(workdir / "metrics.jsonl")[-1]))
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
    _show(table(outcome))
    print(summary(outcome))
    return 1 if outcome.difference else 0


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


def prepare(options: argparse.Namespace) -> int:
    """Prepares the corpus of whatever source was asked for."""
    from w2v2_jax.data.corpora import default_data_dir
    from w2v2_jax.data.prepare import prepare

    prepare(options.source(options), options.data_dir or default_data_dir(), **_given(options, "max_seconds"))
    return 0


def espeak(options: argparse.Namespace) -> Any:
    """The source that `w2v2 prepare espeak` asks for."""
    from w2v2_jax.data.synthetic import ESpeak

    minutes = (f"{split}_minutes" for split in ("train", "labelled", "dev", "test"))
    return ESpeak(**_given(options, "name", *minutes, "num_speakers", "num_held_out", "lexicon", "seed"))


def asterisk(options: argparse.Namespace) -> Any:
    """The source that `w2v2 prepare asterisk` asks for, downloaded first with `--fetch`."""
    from w2v2_jax.data.asterisk import Asterisk, fetch

    given = _given(options, "name", "languages", "labelled_minutes")
    if options.fetch:
        fetch(options.folder, **_given(options, "languages"))
    return Asterisk(options.folder, **given)


def folder(options: argparse.Namespace) -> Any:
    """The source that `w2v2 prepare folder` asks for."""
    from w2v2_jax.data.folders import AudioFolder

    return AudioFolder(options.folder, **_given(options, "name", "valid_percent"))


def manifest(options: argparse.Namespace) -> Any:
    """The source that `w2v2 prepare manifest` asks for."""
    from w2v2_jax.data.manifests import Manifests

    return Manifests(options.name, tuple(options.files))


def transcribe(options: argparse.Namespace) -> int:
    """Writes what is said in each file; those that can't be read are reported and the others go on."""
    from w2v2_jax.data.audio import AudioError
    from w2v2_jax.recognition import load_recogniser

    write = _json_line if options.json else _text if len(options.files) == 1 else _text_line
    failed = False
    recogniser = load_recogniser(options.checkpoint, options.language)
    for file, result in recogniser.transcribe_files(options.files, **_given(options, "max_seconds")):
        if isinstance(result, AudioError):
            failed = True
            complain(f"{file}: {result}")
        else:
            print(write(file, result), flush=True)
    return FAILED if failed else 0


def _text(file: str, transcript: Any) -> str:
    return transcript.text


def _text_line(file: str, transcript: Any) -> str:
    return f"{file}\t{transcript.text}"


def _json_line(file: str, transcript: Any) -> str:
    fields = {"file": file, "text": transcript.text, **transcript._asdict()}
    return json.dumps(fields | {"words": [word._asdict() for word in transcript.words]}, ensure_ascii=False)


def evaluate(options: argparse.Namespace) -> int:
    """Shows error rates on a prepared corpus."""
    from w2v2_jax.data.corpora import default_data_dir, open_split
    from w2v2_jax.evaluation import evaluate_recogniser
    from w2v2_jax.recognition import load_recogniser

    name, split = options.dataset
    records = open_split(name, split, options.data_dir or default_data_dir())
    report = evaluate_recogniser(
        load_recogniser(options.checkpoint, options.language), records, progress=not options.quiet
    )
    _show(report.table(f"{options.checkpoint} on {name}/{split}"))
    if options.output:
        options.output.write_text(report.to_json(), encoding="utf-8")
    return 0


def convert(options: argparse.Namespace) -> int:
    """Writes a network in another format; 1 if it was to be verified and isn't what transformers computes."""
    from rich.console import Console

    from w2v2_jax.conversion import check_can_verify
    from w2v2_jax.pretrained import convert

    if options.verify:
        check_can_verify()
    with Console(stderr=True).status(f"converting {options.source}"):
        card = convert(options.source, options.target, options.to, options.language)
    print(f"{type(card.model).__name__} written to {options.target}")
    return _verify(options) if options.verify else 0


def _verify(options: argparse.Namespace) -> int:
    from rich.console import Console

    from w2v2_jax.conversion import verify

    with Console(stderr=True).status("running it and transformers on the same audio"):
        certificate, file = verify(options.source, options.target, options.to, options.language)
    differences = {case.name: case.largest_difference for case in certificate.cases}
    _show(_table("largest differences from transformers", differences))
    print(f"Certificate: {file}")
    return 0 if certificate.holds else 1


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
        _show(report.search_table(plans))
    best = min(plans, key=rank)
    _show(report.plan_table(best))
    _show(report.ASSUMPTIONS)
    return 0 if best.fits else 1


def demo(options: argparse.Namespace) -> int:
    """Runs the demonstration."""
    from w2v2_jax import demo

    name, size = ("demo_quick", demo.QUICK) if options.quick else ("demo", demo.FULL)
    demo.run(options.workdir or Path("runs") / name, size)
    return 0


def _given(options: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Those of the options that were given: the library has the defaults."""
    return {name: value for name, value in vars(options).items() if name in names and value is not None}


def _show(table: Any) -> None:
    import rich

    rich.print(table)


def _table(title: str, values: Mapping[str, float | int]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), show_header=False)
    for name, value in values.items():
        table.add_row(name, f"{value:,.4g}")
    return table
