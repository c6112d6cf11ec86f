"""The command line `w2v2 <command>`: which commands and options there are, and how they fail."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from w2v2_jax import commands

Command = Callable[[argparse.Namespace], int]

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command that `arguments` (of this process by default) name; returns its exit status.

    0 is success, 1 a run that is unhealthy (`doctor`), doesn't fit (`plan`) or suffers from being killed (`drill`), 2
    something wrong with what was given: one line on standard error says what, and `--debug` where.
    """
    options = make_parser().parse_args(arguments)
    # As for `python -m`: experiments and the classes that checkpoints name are found from where one stands.
    sys.path.insert(0, os.getcwd())
    try:
        return options.command(options)
    except KeyboardInterrupt:
        return INTERRUPTED
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        if options.debug:
            raise
        commands.complain(str(error))
        return commands.FAILED


def _local(text: str) -> Path:
    if "://" in text:
        raise argparse.ArgumentTypeError(
            f"metrics are appended line by line to {text!r}; give a local or mounted folder"
        )
    return Path(text)


def _dataset(text: str) -> tuple[str, str]:
    name, slash, split = text.partition("/")
    if not (name and slash and split):
        raise argparse.ArgumentTypeError(f"{text!r} should be DATASET/SPLIT, e.g. espeak/test")
    return name, split


def _split_file(text: str) -> tuple[str, str]:
    split, equals, file = text.partition("=")
    if not (split and equals and file):
        raise argparse.ArgumentTypeError(f"{text!r} should be SPLIT=FILE, e.g. train=lists/train.tsv")
    return split, file


def make_parser() -> argparse.ArgumentParser:
    """Every command with its options; what it parses has the function to call as `command`."""
    parser = argparse.ArgumentParser(prog="w2v2", description="wav2vec 2.0 in JAX: pretrain, fine-tune, transcribe.")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in (
        _add_train,
        _add_drill,
        _add_prepare,
        _add_transcribe,
        _add_evaluate,
        _add_convert,
        _add_plan,
        _add_doctor,
        _add_plot,
        _add_demo,
    ):
        add(subparsers)
    return parser


def _add(subparsers: Any, name: str, command: Command, text: str) -> argparse.ArgumentParser:
    parser = subparsers.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.add_argument("--debug", action="store_true", help="show where an error comes from")
    parser.set_defaults(command=command)
    return parser


def _add_train(subparsers: Any) -> None:
    parser = _add(subparsers, "train", commands.train, "run an experiment, from its newest checkpoint if there is one")
    parser.add_argument("experiment", help="a module such as experiments.pretrain.base_960h, or a .py file")
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="PATH=VALUE",
        help="change settings, e.g. num_steps=100 task.model.encoder.input_dropout=0.0",
    )  # fmt: skip
    parser.add_argument(
        "--workdir", type=_local, metavar="DIR", help="folder of the run (default: runs/ and the experiment's name)"
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    parser.add_argument("--distributed", action="store_true", help="this is one process of several, e.g. of a TPU pod")
    parser.add_argument("--compile-cache", metavar="DIR", help="keep compiled programs here: restarts are quicker")


def _add_drill(subparsers: Any) -> None:
    parser = _add(subparsers, "drill", commands.drill, "kill a run over and over: does it end as an unbroken one")
    parser.add_argument("experiment", help="a module such as experiments.demo.pretrain, or a .py file")
    parser.add_argument("--kills", type=int, default=8, metavar="N", help="how often (default: 8)")
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="PATH=VALUE",
        help="change settings, e.g. num_steps=200 save_every=20 eval_every=50",
    )  # fmt: skip
    parser.add_argument("--workdir", type=_local, metavar="DIR", help="an empty folder (default: runs/NAME_drill)")
    parser.add_argument("--seed", type=int, default=0, help="another seed kills at other moments")


def _add_prepare(subparsers: Any) -> None:
    parser = subparsers.add_parser("prepare", help="turn recordings into a corpus that can be trained on")
    sources = parser.add_subparsers(title="sources", metavar="SOURCE", required=True)

    espeak = _add_source(sources, "espeak", commands.espeak, "synthetic English speech: no download, exact transcripts")
    for split in ("train", "labelled", "dev", "test"):
        espeak.add_argument(f"--{split}-minutes", type=float, metavar="MINUTES", help=f"how much for {split}")
    espeak.add_argument("--num-speakers", type=int, metavar="N", help="speakers of train and labelled")
    espeak.add_argument("--num-held-out", type=int, metavar="N", help="speakers of dev, and as many of test")
    espeak.add_argument("--lexicon", type=float, metavar="SHARE", help="share of some 350 words to speak with, up to 1")
    espeak.add_argument("--seed", type=int, help="another seed gives other sentences and speakers")
    espeak.add_argument("--name", help="name of the corpus (default: espeak)")

    asterisk = _add_source(
        sources, "asterisk", commands.asterisk, "voice prompts in five languages, from Debian's packages"
    )
    asterisk.add_argument("folder", help="where the packages are, or go with --fetch")
    asterisk.add_argument("--fetch", action="store_true", help="download the packages with apt-get first")
    asterisk.add_argument(
        "--languages", type=lambda text: tuple(text.split(",")), metavar="A,B", help="such as en,fr (default: all)"
    )
    asterisk.add_argument("--labelled-minutes", type=float, metavar="MINUTES", help="how much for labelled")
    asterisk.add_argument("--name", help="name of the corpus (default: asterisk)")

    folder = _add_source(
        sources, "folder", commands.folder, "a folder of audio files at any depth, without transcripts"
    )
    folder.add_argument("folder", help="the folder of the files")
    folder.add_argument("--name", required=True, help="name of the corpus")
    folder.add_argument("--valid-percent", type=float, metavar="PERCENT", help="share of the files that go to dev")

    manifest = _add_source(sources, "manifest", commands.manifest, "files listed in a .tsv (fairseq), .jsonl or .csv")
    manifest.add_argument("files", nargs="+", type=_split_file, metavar="SPLIT=FILE", help="e.g. train=lists/train.tsv")
    manifest.add_argument("--name", required=True, help="name of the corpus")


def _add_source(sources: Any, name: str, source: Callable[[argparse.Namespace], Any], text: str):
    parser = _add(sources, name, commands.prepare, text)
    parser.set_defaults(source=source)
    _add_data_dir(parser)
    parser.add_argument("--max-seconds", type=float, metavar="SECONDS", help="longer recordings are left out")
    return parser


def _add_data_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data-dir", metavar="DIR", help="where corpora are (default: $TFDS_DATA_DIR, else ~/tensorflow_datasets)"
    )


def _add_checkpoint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "checkpoint",
        help="folder of a fine-tuned run, or one checkpoints/STEP of it; of transformers; a .pt file of fairseq",
    )
    _add_language(parser)


def _add_language(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--language",
        default="",
        metavar="LANG",
        help="whose adapters of MMS, e.g. fra (default: as it is set)",
    )


def _add_transcribe(subparsers: Any) -> None:
    parser = _add(subparsers, "transcribe", commands.transcribe, "write down what is said in audio files")
    _add_checkpoint(parser)
    parser.add_argument("files", nargs="+", metavar="FILE", help="audio of any sample rate")
    parser.add_argument("--json", action="store_true", help="a JSON object a line, with times of words")
    parser.add_argument("--max-seconds", type=float, metavar="SECONDS", help="longest recording that is accepted")


def _add_evaluate(subparsers: Any) -> None:
    parser = _add(
        subparsers, "evaluate", commands.evaluate, "measure the error rates of a fine-tuned run on a prepared corpus"
    )
    _add_checkpoint(parser)
    parser.add_argument("dataset", type=_dataset, metavar="DATASET/SPLIT", help="e.g. espeak/test")
    _add_data_dir(parser)
    parser.add_argument("--output", type=Path, metavar="FILE", help="write everything there too, as JSON")
    parser.add_argument("--quiet", action="store_true", help="show no progress")


def _add_convert(subparsers: Any) -> None:
    parser = _add(subparsers, "convert", commands.convert, "bring a network here from another library, or the reverse")
    parser.add_argument(
        "source",
        help="a folder of transformers, a .pt file of fairseq, a state dict of torchaudio, a run or checkpoint of ours",
    )
    parser.add_argument("target", help="what to write: a folder, for fairseq a .pt file")
    parser.add_argument("--to", default="ours", choices=commands.TARGETS, help="the format to write (default: ours)")
    _add_language(parser)
    parser.add_argument(
        "--verify", action="store_true", help="run it and transformers on the same audio; needs torch and transformers"
    )


def _add_plan(subparsers: Any) -> None:
    parser = _add(subparsers, "plan", commands.plan, "tell what an experiment takes on a TPU slice, without a TPU")
    parser.add_argument("experiment", help="a module such as experiments.pretrain.base_960h, or a .py file")
    parser.add_argument("--topology", required=True, metavar="SLICE", help="e.g. v5e:16x16, v5e-256, v4-128, v6e:2x4")
    parser.add_argument("--mesh", metavar="AXES", help="e.g. data=64,fsdp=4 (default: as the experiment has it)")
    parser.add_argument("--search", action="store_true", help="look for a faster way; takes half an hour or more")
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="PATH=VALUE",
        help="change settings, e.g. train_data.batch_size=512",
    )  # fmt: skip


def _add_doctor(subparsers: Any) -> None:
    parser = _add(subparsers, "doctor", commands.doctor, "look for what is wrong with a run")
    parser.add_argument("run", type=Path, help="folder of the run")


def _add_plot(subparsers: Any) -> None:
    parser = _add(subparsers, "plot", commands.plot, "draw the curves of runs beside each other")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a run")
    parser.add_argument("--metrics", nargs="+", metavar="NAME", help="what of metrics.jsonl (default: what tells most)")
    parser.add_argument("--output", type=Path, default=Path("curves.png"), metavar="FILE", help="(default: curves.png)")


def _add_demo(subparsers: Any) -> None:
    parser = _add(subparsers, "demo", commands.demo, "pretrain, fine-tune and transcribe on synthetic speech")
    parser.add_argument(
        "--quick", action="store_true", help="a minute to see that everything runs; too short to learn anything"
    )
    parser.add_argument(
        "--workdir", type=_local, metavar="DIR", help="where its runs go (default: runs/demo or runs/demo_quick)"
    )


if __name__ == "__main__":
    sys.exit(main())
