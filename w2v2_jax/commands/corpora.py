"""Turning recordings into corpora: `prepare` and its sources."""

import argparse
import dataclasses
import importlib
import itertools
import shlex
from typing import Any

from w2v2_jax.commands.terminal import add_command, add_data_dir, given, positive


def add(subparsers: Any) -> None:
    """Adds `prepare` with a subcommand for each source."""
    prepare = subparsers.add_parser("prepare", help="turn recordings into a corpus that can be trained on")
    sources = prepare.add_subparsers(title="sources", metavar="SOURCE", required=True)
    _add_own(sources)
    _add_published(sources)
    _add_made(sources)


def _add_own(sources: Any) -> None:
    """Recordings of the user's own."""
    parser = _add(sources, "folder", "folders:AudioFolder", "a folder of audio files at any depth, without transcripts")
    parser.add_argument("path", metavar="FOLDER", help="the folder of the files")
    parser.add_argument("--name", required=True, help="name of the corpus")
    parser.add_argument("--valid-percent", type=float, metavar="PERCENT", help="share of the files that go to dev")

    parser = _add(sources, "manifest", "manifests:Manifests", "files listed in a .tsv (fairseq), .jsonl or .csv")
    parser.add_argument("files", nargs="+", type=_split_file, metavar="SPLIT=FILE", help="e.g. train=lists/train.tsv")
    parser.add_argument("--name", required=True, help="name of the corpus")

    parser = _add(
        sources, "parquet", "parquet:Parquet", "parquet files with audio in them, as of Hugging Face datasets"
    )
    parser.add_argument("folder", metavar="FOLDER", help="the folder of the files")
    parser.add_argument("--name", required=True, help="name of the corpus")
    parser.add_argument("--language", metavar="CODE", help="of rows that don't say theirs")
    for column in ("audio", "text", "speaker", "language", "id"):
        _add_names(parser, f"--{column}-columns", "columns to look for, the first there is taken")

    parser = _add(
        sources, "webdataset", "webdataset:WebDataset", "tars of recordings and their texts, as of WebDataset"
    )
    parser.add_argument(
        "shards",
        nargs="+",
        type=_shards,
        metavar="FOLDER or SPLIT=FILES",
        help="a folder of shards, or e.g. train=to/train-{000000..000146}.tar",
    )
    parser.add_argument("--name", required=True, help="name of the corpus")
    parser.add_argument("--language", metavar="CODE", help="of the recordings")

    # Some utterances of LibriSpeech's dev and test are longer than the 30 s that are usual.
    parser = _add(
        sources,
        "catalogue",
        "catalogue:Catalogue",
        "a speech corpus of TFDS that TensorFlow prepared",
        max_seconds=40.0,
    )
    parser.add_argument("folder", metavar="FOLDER", help="of a version, e.g. librispeech/lazy_decode/2.1.2")
    parser.add_argument("--name", required=True, help="name of the corpus")
    parser.add_argument("--language", metavar="CODE", help="of the recordings")
    parser.add_argument(
        "--sample-rate", type=positive, metavar="HZ", help="of samples that features.json has no rate of"
    )


def _add_published(sources: Any) -> None:
    """Corpora that the user has a copy of, as they were published."""
    # Some utterances of dev and test are longer than the 30 s that are usual.
    _add_copy(sources, "librispeech", "LibriSpeech", "LibriSpeech, by the splits of its archives", max_seconds=40.0)
    _add_copy(sources, "librilight", "LibriLightLimited", "Libri-Light's 10 minutes, 1 hour and 10 hours")
    parser = _add_copy(
        sources,
        "librilight-unlab",
        "LibriLight",
        "Libri-Light's 60,000 hours, cut where there is no voice",
        module="librilight",
    )
    parser.add_argument("--segment-seconds", type=float, metavar="SECONDS", help="voice in one segment (default: 30)")
    parser = _add_copy(
        sources, "mls", "MultilingualLibriSpeech", "Multilingual LibriSpeech", module="multilingual_librispeech"
    )
    _add_languages(parser, "such as de,fr", required=True)
    # Windows of 30 s may come out a sample longer.
    parser = _add_copy(sources, "voxpopuli", "VoxPopuli", "the European Parliament in 23 languages", max_seconds=31.0)
    _add_languages(parser, "such as de,fr, or en_accented to test on", required=True)
    parser = _add_copy(sources, "common-voice", "CommonVoice", "Common Voice", module="common_voice")
    _add_languages(parser, "such as en,sv-SE (default: all in the folder)")
    _add_names(parser, "--parts", "of train, dev, test, validated, invalidated, other (default: train,dev,test)")
    parser = _add_copy(sources, "gigaspeech", "GigaSpeech", "GigaSpeech: GigaSpeech.json and its audio")
    _add_names(parser, "--subsets", "of XS, S, M, L, XL, DEV, TEST (default: XL,DEV,TEST)")
    _add_copy(sources, "ljspeech", "LJSpeech", "LJSpeech, one reader of books")
    parser = _add_copy(sources, "timit", "Timit", "TIMIT: phones of train, dev and core test set")
    parser.add_argument(
        "--num-phones", type=int, choices=(61, 48, 39), help="phones of the transcripts (default: 39, as scored)"
    )


def _add_made(sources: Any) -> None:
    """Corpora that this command makes, or fetches."""
    parser = _add(sources, "espeak", "synthetic:ESpeak", "synthetic English speech: no download, exact transcripts")
    for split in ("train", "labelled", "dev", "test"):
        parser.add_argument(f"--{split}-minutes", type=float, metavar="MINUTES", help=f"how much for {split}")
    parser.add_argument("--num-speakers", type=positive, metavar="N", help="speakers of train and labelled")
    parser.add_argument("--num-held-out", type=positive, metavar="N", help="speakers of dev, and as many of test")
    parser.add_argument("--lexicon", type=float, metavar="SHARE", help="share of some 350 words to speak with, up to 1")
    parser.add_argument("--seed", type=int, help="another seed gives other sentences and speakers")
    parser.add_argument("--name", help="name of the corpus (default: espeak)")

    parser = _add(sources, "asterisk", "asterisk:Asterisk", "voice prompts in five languages, from Debian's packages")
    parser.add_argument("folder", metavar="FOLDER", help="where the packages are, or go with --fetch")
    parser.add_argument("--fetch", action="store_true", help="download the packages with apt-get first")
    _add_languages(parser, "such as en,fr (default: all)")
    parser.add_argument("--labelled-minutes", type=float, metavar="MINUTES", help="how much for labelled")
    parser.add_argument("--name", help="name of the corpus (default: asterisk)")


def _add_copy(
    sources: Any, command: str, source: str, text: str, module: str = "", max_seconds: float | None = None
) -> argparse.ArgumentParser:
    parser = _add(sources, command, f"{module or command}:{source}", f"your copy of {text}", max_seconds)
    parser.add_argument("folder", metavar="FOLDER", help="where its archives were unpacked")
    parser.add_argument("--name", help="name of the corpus (default: as in the experiments)")
    return parser


def _add(
    sources: Any, command: str, source: str, text: str, max_seconds: float | None = None
) -> argparse.ArgumentParser:
    """A subcommand for the class `source`, which takes those options that it has fields for."""
    parser = add_command(sources, command, prepare, text)
    parser.set_defaults(source=source)
    add_data_dir(parser)
    parser.add_argument(
        "--max-seconds",
        type=float,
        metavar="SECONDS",
        default=max_seconds,
        help=f"longer recordings are left out (default: {max_seconds or 30:g})",
    )
    parser.add_argument("--processes", type=positive, metavar="N", help="so many at once (default: one a core)")
    parser.add_argument(
        "--beam",
        type=shlex.split,
        metavar="OPTIONS",
        help='on many machines by Apache Beam, e.g. --beam="--runner=FlinkRunner --flink_master=host:8081"',
    )
    return parser


def _add_names(parser: argparse.ArgumentParser, option: str, text: str) -> None:
    parser.add_argument(option, type=_names, metavar="A,B", help=text)


def _add_languages(parser: argparse.ArgumentParser, text: str, required: bool = False) -> None:
    parser.add_argument("--languages", type=_names, metavar="A,B", help=text, required=required)


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _split_file(text: str) -> tuple[tuple[str, str], ...]:
    split, equals, file = text.partition("=")
    if not (split and equals and file):
        raise argparse.ArgumentTypeError(f"{text!r} should be SPLIT=FILE, e.g. train=lists/train.tsv")
    return ((split, file),)


def _shards(text: str) -> tuple[tuple[str, str], ...]:
    return _split_file(text) if "=" in text else (("", text),)


def prepare(options: argparse.Namespace) -> int:
    """Prepares the corpus of whatever source was asked for."""
    from w2v2_jax.data.beam_pipeline import Beam
    from w2v2_jax.data.corpora import default_data_dir
    from w2v2_jax.data.prepare import Processes, prepare

    if options.beam is not None and options.processes:
        raise ValueError("--processes are of this machine, --beam has options of its own for that; give one of them")
    local = Processes(options.processes) if options.processes else Processes()
    runner = local if options.beam is None else Beam(tuple(options.beam))
    source, data_dir = source_of(options), options.data_dir or default_data_dir()
    prepare(source, data_dir, runner=runner, **given(options, "max_seconds"))
    return 0


def source_of(options: argparse.Namespace) -> Any:
    """The source that the options ask for; with `--fetch` it is downloaded first."""
    module, name = options.source.split(":")
    kind = getattr(importlib.import_module(f"w2v2_jax.data.sources.{module}"), name)
    fields = given(options, *(field.name for field in dataclasses.fields(kind)))
    if given(options, "fetch").get("fetch"):
        from w2v2_jax.data.sources.asterisk import fetch

        fetch(options.folder, **given(options, "languages"))
    # Of an argument that may be repeated each gives a tuple.
    lists = {key: tuple(itertools.chain(*value)) for key, value in fields.items() if isinstance(value, list)}
    return kind(**fields | lists)
