"""What the commands have in common: options, complaints, tables.

Commands import what they need when they run, so that `w2v2 --help` answers at once.
"""

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Command = Callable[[argparse.Namespace], int]

FAILED = 2
"""The exit status where something is wrong with what was given."""


def complain(message: str) -> None:
    """One line on standard error."""
    print(f"w2v2: {' '.join(message.splitlines())}", file=sys.stderr)


def remark(message: str) -> None:
    """One line on standard error of something that is as it should be."""
    print(message, file=sys.stderr)


def add_command(subparsers: Any, name: str, command: Command, text: str) -> argparse.ArgumentParser:
    """A command that calls `command` with its options; `text` says what it does."""
    parser = subparsers.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.add_argument("--debug", action="store_true", help="show where an error comes from")
    parser.set_defaults(command=command)
    return parser


def local_folder(text: str) -> Path:
    """The type of an option that names the folder of a run."""
    if "://" in text:
        raise argparse.ArgumentTypeError(
            f"metrics are appended line by line to {text!r}; give a local or mounted folder"
        )
    return Path(text)


def output_file(text: str) -> Path:
    """The type of an option that names a file to write: better told before hours of work than after."""
    path = Path(text)
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {path.parent} to write {path.name} into; make it first")
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{path} is a folder; give the name of a file")
    return path


def positive(text: str) -> int:
    """The type of an option that counts something."""
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} should be a whole number, 1 or more")
    return int(text)


def dataset(text: str) -> tuple[str, str]:
    """The type of an argument that names a split of a corpus."""
    name, slash, split = text.partition("/")
    if not (name and slash and split):
        raise argparse.ArgumentTypeError(f"{text!r} should be DATASET/SPLIT, e.g. espeak/test")
    return name, split


def add_experiment(parser: argparse.ArgumentParser, example: str) -> None:
    """The experiment and `--set`, with an example of settings."""
    parser.add_argument("experiment", help="a module such as experiments.pretrain.base_960h, or a .py file")
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="PATH=VALUE", help=f"change settings, e.g. {example}"
    )


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """The checkpoint of something that recognises speech, and `--language`."""
    parser.add_argument(
        "checkpoint",
        help="folder of a fine-tuned run, or one checkpoints/STEP of it; of transformers; a .pt file of fairseq",
    )
    add_language(parser)


def add_language(parser: argparse.ArgumentParser) -> None:
    """The option `--language`."""
    parser.add_argument(
        "--language",
        default="",
        metavar="LANG",
        help="whose adapters of MMS, e.g. fra (default: as it is set)",
    )


def add_data_dir(parser: argparse.ArgumentParser) -> None:
    """The option `--data-dir`."""
    parser.add_argument(
        "--data-dir", metavar="DIR", help="where corpora are (default: $TFDS_DATA_DIR, else ~/tensorflow_datasets)"
    )


def given(options: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Those of the options that were given: the library has the defaults."""
    return {name: value for name, value in vars(options).items() if name in names and value is not None}


def show(table: Any) -> None:
    """Prints a table, or text, as wide as the terminal."""
    import rich

    rich.print(table)


def table(title: str, values: Mapping[str, float | int]) -> Any:
    """A table of numbers by name."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), show_header=False)
    for name, value in values.items():
        table.add_row(name, f"{value:,.4g}")
    return table
