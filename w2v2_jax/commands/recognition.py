"""From speech to text: `transcribe` and `evaluate`."""

import argparse
import json
from pathlib import Path
from typing import Any

from w2v2_jax.commands.terminal import FAILED, add_checkpoint, add_command, add_data_dir, complain, dataset, given, show


def add(subparsers: Any) -> None:
    """Adds the commands of this file."""
    _add_transcribe(subparsers)
    _add_evaluate(subparsers)


def _add_transcribe(subparsers: Any) -> None:
    parser = add_command(subparsers, "transcribe", transcribe, "write down what is said in audio files")
    add_checkpoint(parser)
    parser.add_argument("files", nargs="+", metavar="FILE", help="audio of any sample rate")
    parser.add_argument("--json", action="store_true", help="a JSON object a line, with times of words")
    parser.add_argument("--max-seconds", type=float, metavar="SECONDS", help="longest recording that is accepted")


def _add_evaluate(subparsers: Any) -> None:
    parser = add_command(
        subparsers, "evaluate", evaluate, "measure the error rates of a fine-tuned run on a prepared corpus"
    )
    add_checkpoint(parser)
    parser.add_argument("dataset", type=dataset, metavar="DATASET/SPLIT", help="e.g. espeak/test")
    add_data_dir(parser)
    parser.add_argument("--output", type=Path, metavar="FILE", help="write everything there too, as JSON")
    parser.add_argument("--quiet", action="store_true", help="show no progress")


def transcribe(options: argparse.Namespace) -> int:
    """Writes what is said in each file; those that can't be read are reported and the others go on."""
    from w2v2_jax.data.audio import AudioError
    from w2v2_jax.recognition import load_recogniser

    write = _json_line if options.json else _text if len(options.files) == 1 else _text_line
    failed = False
    recogniser = load_recogniser(options.checkpoint, options.language)
    for file, result in recogniser.transcribe_files(options.files, **given(options, "max_seconds")):
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
    show(report.table(f"{options.checkpoint} on {name}/{split}"))
    if options.output:
        options.output.write_text(report.to_json(), encoding="utf-8")
    return 0
