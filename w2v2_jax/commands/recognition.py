"""From speech to text: `transcribe`, `align` and `evaluate`."""

import argparse
import contextlib
import dataclasses
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from w2v2_jax.commands.decoders import add_decoder, decoder_of, described
from w2v2_jax.commands.terminal import (
    FAILED,
    add_checkpoint,
    add_command,
    add_data_dir,
    complain,
    dataset,
    given,
    output_file,
    positive,
    show,
)

TRANSCRIPTS = ("text", "json", "srt", "vtt", "ctm")
ALIGNMENTS = ("json", "textgrid", "ctm", "srt", "vtt")
"""What transcripts and alignments are written as."""


def add(subparsers: Any) -> None:
    """Adds the commands of this file."""
    _add_transcribe(subparsers)
    _add_align(subparsers)
    _add_evaluate(subparsers)


def _add_transcribe(subparsers: Any) -> None:
    parser = add_command(subparsers, "transcribe", transcribe, "write down what is said in audio files of any length")
    add_checkpoint(parser)
    parser.add_argument("files", nargs="+", metavar="FILE", help="audio of any sample rate")
    parser.add_argument(
        "--format",
        choices=TRANSCRIPTS,
        default="text",
        help="json has the times of words and letters (default: text)",
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="write a file for each recording there")
    parser.add_argument("--max-seconds", type=float, metavar="SECONDS", help="longest recording that is accepted")
    _add_chunking(parser)
    add_decoder(parser).add_argument(
        "--n-best", type=positive, metavar="N", help="json has so many candidates with their scores"
    )


def _add_chunking(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--chunk-seconds", type=float, metavar="SECONDS", help="longer recordings are cut into such (default: 30)"
    )
    parser.add_argument(
        "--stride-seconds", type=float, metavar="SECONDS", help="what a chunk hears beyond its own (default: 5)"
    )


def _add_align(subparsers: Any) -> None:
    parser = add_command(subparsers, "align", align, "tell when each word and letter of a transcript was spoken")
    add_checkpoint(parser)
    parser.add_argument("source", help="an audio file; without TEXT a prepared corpus, DATASET/SPLIT")
    parser.add_argument("text", nargs="?", help="what was said, or a file of it")
    parser.add_argument("--format", choices=ALIGNMENTS, default="json", help="(default: json)")
    parser.add_argument("--output", type=Path, metavar="DIR", help="write a file for each recording there")
    add_data_dir(parser)
    _add_chunking(parser)


def _add_evaluate(subparsers: Any) -> None:
    parser = add_command(
        subparsers, "evaluate", evaluate, "measure the error rates of a fine-tuned run on a prepared corpus"
    )
    add_checkpoint(parser)
    parser.add_argument("dataset", type=dataset, metavar="DATASET/SPLIT", help="e.g. espeak/test")
    add_data_dir(parser)
    parser.add_argument("--output", type=output_file, metavar="FILE", help="write everything there too, as JSON")
    parser.add_argument("--html", type=output_file, metavar="FILE", help="write a report to read and listen to")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="with another evaluation, what its --output wrote")
    parser.add_argument("--phones", action="store_true", help="texts are TIMIT's phones: fold them to 39")
    parser.add_argument("--by-speaker", action="store_true", help="intervals that hold for other speakers")
    parser.add_argument("--workdir", type=Path, metavar="DIR", help="keep what is recognised here: a restart goes on")
    parser.add_argument("--distributed", action="store_true", help="this is one process of several; needs --workdir")
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    add_decoder(parser)


def transcribe(options: argparse.Namespace) -> int:
    """Writes what is said in each file; those that can't be read are reported and the others go on."""
    from w2v2_jax.data.audio import AudioError

    if options.n_best and options.format != "json":
        raise ValueError(f"--format {options.format} has no place for candidates; give --n-best with --format json")
    if options.format in ("srt", "vtt") and len(options.files) > 1 and not options.output:
        raise ValueError(f"subtitles of {len(options.files)} recordings can't be one file; give a folder with --output")
    names = [Path(file).stem for file in options.files]
    if options.output and len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"several recordings are named {twice}, and would be one file; give them one after the other")
    failed = False
    recogniser = _recogniser(options)
    for file, result in recogniser.transcribe_files(options.files, _chunking(options), **given(options, "max_seconds")):
        if isinstance(result, AudioError):
            failed = True
            complain(f"{file}: {result}")
        else:
            _write(options, Path(file).stem, _transcript_as(options, file, result))
    return FAILED if failed else 0


def _recogniser(options: argparse.Namespace) -> Any:
    from w2v2_jax.recognition import load_recogniser

    recogniser = load_recogniser(options.checkpoint, options.language)
    return dataclasses.replace(recogniser, decoder=decoder_of(options, recogniser.vocabulary))


def _chunking(options: argparse.Namespace) -> Any:
    from w2v2_jax.recognition import CHUNKING

    changed = {"seconds": options.chunk_seconds, "stride_seconds": options.stride_seconds}
    return dataclasses.replace(CHUNKING, **{name: value for name, value in changed.items() if value is not None})


def _transcript_as(options: argparse.Namespace, file: str, transcript: Any) -> str:
    if options.format == "text":
        return (
            f"{file}\t{transcript.text}\n" if len(options.files) > 1 and not options.output else f"{transcript.text}\n"
        )
    if options.format == "json":
        fields = {"file": file, "text": transcript.text, **transcript._asdict()}
        for name in ("words", "symbols", "candidates"):
            fields[name] = [each._asdict() for each in fields[name]]
        return json.dumps(fields, ensure_ascii=False) + "\n"
    return _timed_as(options.format, Path(file).stem, transcript.words)


def _timed_as(form: str, name: str, words: Any) -> str:
    from w2v2_jax.decoding.segments import subtitles, to_ctm, to_srt, to_vtt

    if form == "ctm":
        return to_ctm(words, name)
    return {"srt": to_srt, "vtt": to_vtt}[form](subtitles(words))


def _write(options: argparse.Namespace, name: str, text: str) -> None:
    if options.output is None:
        print(text, end="", flush=True)
        return
    options.output.mkdir(parents=True, exist_ok=True)
    suffix = {"text": "txt", "textgrid": "TextGrid"}.get(options.format, options.format)
    (options.output / f"{name}.{suffix}").write_text(text, encoding="utf-8")


def align(options: argparse.Namespace) -> int:
    """Writes the alignment of a recording, or of each of a corpus; what can't be aligned is reported."""
    from w2v2_jax.aligning import align_emissions, align_file
    from w2v2_jax.data.audio import SAMPLE_RATE, decode_record
    from w2v2_jax.data.corpora import default_data_dir, open_split
    from w2v2_jax.recognition import load_recogniser

    recogniser = load_recogniser(options.checkpoint, options.language)
    if options.text is not None:
        # Not `Path.is_file`, for which a long text is a name too long.
        text = Path(options.text).read_text("utf-8") if os.path.isfile(options.text) else options.text
        aligned = align_file(recogniser, options.source, text, _chunking(options))
        name = Path(options.source).stem
        _write(options, name, _alignment_as(options, aligned, name))
        return 0
    if options.output is None:
        raise ValueError(f"without a TEXT {options.source} is a corpus; give a folder for its alignments with --output")
    records = open_split(*dataset(options.source), options.data_dir or default_data_dir())
    failed = False
    emissions = recogniser.emissions(decode_record(records[place]) for place in range(len(records)))
    for place, found in enumerate(emissions):
        record = records[place]
        try:
            aligned = align_emissions(recogniser, found, record["text"], record["num_samples"] / SAMPLE_RATE)
        except ValueError as error:
            failed = True
            complain(f"{record['id']}: {error}")
        else:
            name = record["id"].replace("/", "_")
            _write(options, name, _alignment_as(options, aligned, name))
    return FAILED if failed else 0


def _alignment_as(options: argparse.Namespace, aligned: Any, name: str) -> str:
    from w2v2_jax.decoding.segments import to_json, to_textgrid

    if options.format in ("json", "textgrid"):
        tiers = {"words": aligned.words, "symbols": aligned.symbols}
        return {"json": to_json, "textgrid": to_textgrid}[options.format](tiers, aligned.seconds)
    return _timed_as(options.format, name, aligned.words)


def evaluate(options: argparse.Namespace) -> int:
    """Shows error rates on a prepared corpus."""
    import jax

    from w2v2_jax import evaluation
    from w2v2_jax.data.corpora import default_data_dir, open_split
    from w2v2_jax.processes import gathered, meet

    if options.distributed:
        if options.workdir is None:
            raise ValueError("processes share what they recognise in a folder that all of them see; give a --workdir")
        meet()
    name, split = options.dataset
    records = open_split(name, split, options.data_dir or default_data_dir())
    counted = evaluation.PHONES if options.phones else evaluation.WORDS
    evaluation.check_references(records, counted)
    before = evaluation.read_report(options.compare) if options.compare else None
    recogniser = _recogniser(options)
    setting = described(options, recogniser.fingerprint)
    with _folder(options) as folder:
        share = (jax.process_index(), jax.process_count())
        evaluation.recognise(recogniser, records, folder, setting, share, not options.quiet)
        if options.distributed:
            gathered("done")
        utterances = evaluation.recognised(records, folder, setting)
    if jax.process_index():  # the first tells
        return 0
    report = evaluation.make_report(utterances, counted, options.by_speaker)
    title = f"{options.checkpoint} on {name}/{split}"
    show(report.table(title))
    if options.output:
        options.output.write_text(report.to_json(), encoding="utf-8")
    if options.html:
        options.html.write_text(_html(options, title, report, records), encoding="utf-8")
    if before:
        show(_comparison(options, before, report, counted))
    return 0


@contextlib.contextmanager
def _folder(options: argparse.Namespace) -> Iterator[Path]:
    if options.workdir is not None:
        yield options.workdir
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)


def _html(options: argparse.Namespace, title: str, report: Any, records: Any) -> str:
    from w2v2_jax.decoding.phones import folded
    from w2v2_jax.decoding.report_html import report_html

    places = {utterance.id: place for place, utterance in enumerate(report.utterances)}
    utterances = [folded(each) for each in report.utterances] if options.phones else report.utterances
    return report_html(title, report.rates, utterances, audio=lambda each: records[places[each.id]]["audio"])


def _comparison(options: argparse.Namespace, before: Any, report: Any, counted: Mapping[str, Any]) -> str:
    from w2v2_jax.decoding.comparison import compare, paired
    from w2v2_jax.decoding.scoring import by_speaker

    unit, count = next(iter(counted.items()))

    def counts(utterances: Any) -> Any:
        found = [count(each.reference, each.hypothesis) for each in utterances]
        return [*by_speaker(utterances, found).values()] if options.by_speaker else found

    found = compare(counts(before.utterances), counts(paired(before.utterances, report.utterances)))
    return (
        f"Compared with {options.compare}: {found.difference:+.2%} errors in {unit} ({found.low:+.2%} to "
        f"{found.high:+.2%}), better with a probability of {found.probability_of_improvement:.1%}"
    )
