"""Turning recordings into corpora: `prepare` and its sources."""

import argparse
from collections.abc import Callable
from typing import Any

from w2v2_jax.commands.terminal import add_command, add_data_dir, given, positive


def add(subparsers: Any) -> None:
    """Adds `prepare` with a subcommand for each source."""
    prepare = subparsers.add_parser("prepare", help="turn recordings into a corpus that can be trained on")
    sources = prepare.add_subparsers(title="sources", metavar="SOURCE", required=True)

    parser = _add_source(sources, "espeak", espeak, "synthetic English speech: no download, exact transcripts")
    for split in ("train", "labelled", "dev", "test"):
        parser.add_argument(f"--{split}-minutes", type=float, metavar="MINUTES", help=f"how much for {split}")
    parser.add_argument("--num-speakers", type=positive, metavar="N", help="speakers of train and labelled")
    parser.add_argument("--num-held-out", type=positive, metavar="N", help="speakers of dev, and as many of test")
    parser.add_argument("--lexicon", type=float, metavar="SHARE", help="share of some 350 words to speak with, up to 1")
    parser.add_argument("--seed", type=int, help="another seed gives other sentences and speakers")
    parser.add_argument("--name", help="name of the corpus (default: espeak)")

    parser = _add_source(sources, "asterisk", asterisk, "voice prompts in five languages, from Debian's packages")
    parser.add_argument("folder", help="where the packages are, or go with --fetch")
    parser.add_argument("--fetch", action="store_true", help="download the packages with apt-get first")
    parser.add_argument(
        "--languages", type=lambda text: tuple(text.split(",")), metavar="A,B", help="such as en,fr (default: all)"
    )
    parser.add_argument("--labelled-minutes", type=float, metavar="MINUTES", help="how much for labelled")
    parser.add_argument("--name", help="name of the corpus (default: asterisk)")

    parser = _add_source(sources, "timit", timit, "your copy of TIMIT: phones of train, dev and core test set")
    parser.add_argument("folder", help="the folder that holds TRAIN and TEST")
    parser.add_argument(
        "--num-phones", type=int, choices=(61, 48, 39), help="phones of the transcripts (default: 39, as scored)"
    )
    parser.add_argument("--name", help="name of the corpus (default: timit)")

    parser = _add_source(sources, "folder", folder, "a folder of audio files at any depth, without transcripts")
    parser.add_argument("folder", help="the folder of the files")
    parser.add_argument("--name", required=True, help="name of the corpus")
    parser.add_argument("--valid-percent", type=float, metavar="PERCENT", help="share of the files that go to dev")

    parser = _add_source(sources, "manifest", manifest, "files listed in a .tsv (fairseq), .jsonl or .csv")
    parser.add_argument("files", nargs="+", type=_split_file, metavar="SPLIT=FILE", help="e.g. train=lists/train.tsv")
    parser.add_argument("--name", required=True, help="name of the corpus")


def _add_source(sources: Any, name: str, source: Callable[[argparse.Namespace], Any], text: str):
    parser = add_command(sources, name, prepare, text)
    parser.set_defaults(source=source)
    add_data_dir(parser)
    parser.add_argument("--max-seconds", type=float, metavar="SECONDS", help="longer recordings are left out")
    return parser


def _split_file(text: str) -> tuple[str, str]:
    split, equals, file = text.partition("=")
    if not (split and equals and file):
        raise argparse.ArgumentTypeError(f"{text!r} should be SPLIT=FILE, e.g. train=lists/train.tsv")
    return split, file


def prepare(options: argparse.Namespace) -> int:
    """Prepares the corpus of whatever source was asked for."""
    from w2v2_jax.data.corpora import default_data_dir
    from w2v2_jax.data.prepare import prepare

    prepare(options.source(options), options.data_dir or default_data_dir(), **given(options, "max_seconds"))
    return 0


def espeak(options: argparse.Namespace) -> Any:
    """The source that `w2v2 prepare espeak` asks for."""
    from w2v2_jax.data.sources.synthetic import ESpeak

    minutes = (f"{split}_minutes" for split in ("train", "labelled", "dev", "test"))
    return ESpeak(**given(options, "name", *minutes, "num_speakers", "num_held_out", "lexicon", "seed"))


def asterisk(options: argparse.Namespace) -> Any:
    """The source that `w2v2 prepare asterisk` asks for, downloaded first with `--fetch`."""
    from w2v2_jax.data.sources.asterisk import Asterisk, fetch

    if options.fetch:
        fetch(options.folder, **given(options, "languages"))
    return Asterisk(options.folder, **given(options, "name", "languages", "labelled_minutes"))


def timit(options: argparse.Namespace) -> Any:
    """The source that `w2v2 prepare timit` asks for."""
    from w2v2_jax.data.sources.timit import Timit

    return Timit(options.folder, **given(options, "name", "num_phones"))


def folder(options: argparse.Namespace) -> Any:
    """The source that `w2v2 prepare folder` asks for."""
    from w2v2_jax.data.sources.folders import AudioFolder

    return AudioFolder(options.folder, **given(options, "name", "valid_percent"))


def manifest(options: argparse.Namespace) -> Any:
    """The source that `w2v2 prepare manifest` asks for."""
    from w2v2_jax.data.sources.manifests import Manifests

    return Manifests(options.name, tuple(options.files))
