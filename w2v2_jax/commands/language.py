"""Language models and how much they count: `lm train`, `lm perplexity` and `tune`."""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from w2v2_jax.commands.decoders import add_decoder, described, num_workers, search_of, transformer
from w2v2_jax.commands.terminal import (
    add_checkpoint,
    add_command,
    add_data_dir,
    complain,
    dataset,
    output_file,
    positive,
    show,
    table,
)


def add(subparsers: Any) -> None:
    """Adds the commands of this file."""
    parser = subparsers.add_parser("lm", help="make n-gram language models and measure them")
    models = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_train(models)
    _add_prepare(models)
    _add_perplexity(models)
    _add_tune(subparsers)


def _add_train(models: Any) -> None:
    parser = add_command(models, "train", train, "make an n-gram model of a text, as KenLM's lmplz does")
    _add_texts(parser)
    _add_letters(parser)
    parser.add_argument("--order", type=positive, default=4, metavar="N", help="of the longest n-grams (default: 4)")
    parser.add_argument(
        "--output", type=output_file, metavar="FILE", help="the ARPA file to write (default: 4gram.arpa, by its order)"
    )
    parser.add_argument(
        "--prune", type=int, nargs="+", default=(0,), metavar="N", help="leave out n-grams as rare, by order: 0 0 1"
    )
    parser.add_argument(
        "--discount-fallback", action="store_true", help="for small or made-up texts: discounts of 0.5, 1 and 1.5"
    )
    parser.add_argument("--binary", type=output_file, metavar="FILE", help="write KenLM's too, by its build_binary")


def _add_prepare(models: Any) -> None:
    parser = add_command(models, "prepare", prepare, "make a text ready for a Transformer, see experiments/language")
    parser.add_argument("name", help="name of the text, which experiments ask for")
    for split in ("train", "dev"):
        parser.add_argument(f"--{split}", nargs="+", required=True, metavar="TEXT", help="as for `lm train`")
    parser.add_argument(
        "--max-words",
        type=positive,
        required=True,
        metavar="N",
        help="the most frequent words are known, `</s>` and `<unk>` among them",
    )
    parser.add_argument("--min-count", type=positive, default=1, metavar="N", help="words as frequent (default: 1)")
    _add_cleaning(parser)


def _add_perplexity(models: Any) -> None:
    parser = add_command(models, "perplexity", perplexity, "how well a language model predicts a text")
    parser.add_argument("model", type=Path, help="an ARPA file, or the run of a Transformer")
    _add_texts(parser)
    _add_letters(parser)


def _add_texts(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "texts", nargs="+", metavar="TEXT", help="a file with a sentence a line, or DATASET/SPLIT: its transcripts"
    )
    _add_cleaning(parser)


def _add_letters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--letters", action="store_true", help="words as letters with a | behind them, for a search with --lexicon-free"
    )


def _add_cleaning(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--clean", action="store_true", help="English in capitals without punctuation; others left out")
    parser.add_argument("--language", metavar="LANG", help="those transcripts alone, e.g. en")
    add_data_dir(parser)


def _add_tune(subparsers: Any) -> None:
    parser = add_command(
        subparsers, "tune", tune, "find how much a language model and the number of words should count"
    )
    add_checkpoint(parser)
    parser.add_argument("dataset", type=dataset, metavar="DATASET/SPLIT", help="e.g. librispeech/dev_other")
    add_data_dir(parser)
    parser.add_argument("--trials", type=positive, default=128, metavar="N", help="settings to try (default: 128)")
    parser.add_argument("--seed", type=int, default=0, help="another seed tries others")
    parser.add_argument(
        "--workdir", type=Path, required=True, metavar="DIR", help="for emissions, trials, plot and the setting"
    )
    add_decoder(parser)


def train(options: argparse.Namespace) -> int:
    """Writes a model and says how large it is."""
    from w2v2_jax.decoding.arpa import to_binary, write_arpa
    from w2v2_jax.decoding.ngram import estimate_discounts, fallback_discounts, train_ngram

    output = options.output or Path(f"{options.order}gram.arpa")
    # So few letters there are that all are frequent, and rare ones, of which discounts are estimated, there are none.
    discounts = fallback_discounts if options.discount_fallback or options.letters else estimate_discounts
    sentences = _Sentences(options.texts, options, options.letters)
    model = train_ngram(sentences, options.order, options.prune, discounts)
    sentences.tell_left_out()
    write_arpa(model, output)
    if options.binary:
        to_binary(output, options.binary)
    show(table(str(output), {f"{n}-grams": len(grams.keys) for n, grams in enumerate(model.orders, 1)}))
    return 0


def prepare(options: argparse.Namespace) -> int:
    """Prepares a text and says how many words are known of it."""
    from w2v2_jax.data.corpora import default_data_dir
    from w2v2_jax.data.language import prepare_text

    splits = {"train": _Sentences(options.train, options), "dev": _Sentences(options.dev, options)}
    data_dir = options.data_dir or default_data_dir()
    words = prepare_text(splits, options.name, data_dir, options.max_words, options.min_count)
    for sentences in splits.values():
        sentences.tell_left_out()
    show(f"{options.name}: {len(words):,} words are known, `</s>` and `<unk>` among them")
    return 0


def perplexity(options: argparse.Namespace) -> int:
    """Shows the perplexity of a text."""
    from w2v2_jax.decoding.arpa import read_arpa
    from w2v2_jax.decoding.ngram import perplexity

    sentences = _Sentences(options.texts, options, options.letters)
    if options.model.is_dir():
        found = transformer(str(options.model)).perplexity([" ".join(sentence.split()) for sentence in sentences])
    else:
        found = perplexity(read_arpa(options.model), sentences)
    sentences.tell_left_out()
    values = {name.replace("_", " "): value for name, value in found._asdict().items()}
    show(table(f"{options.model} on {' '.join(options.texts)}", values))
    return 0


class _Sentences:
    """The sentences of files and of corpora, as the options want them; they can be gone through again."""

    def __init__(self, texts: Sequence[str], options: argparse.Namespace, letters: bool = False):
        self._texts, self._options, self._letters, self._left_out = texts, options, letters, 0

    def __iter__(self) -> Iterator[str]:
        from w2v2_jax.data.language import read_lines
        from w2v2_jax.data.text import TextError, clean_transcript, spelled

        self._left_out = 0
        for text in self._texts:
            for sentence in read_lines([text]) if Path(text).exists() else _transcripts(text, self._options):
                try:
                    cleaned = clean_transcript(sentence) if self._options.clean else sentence
                except TextError:
                    self._left_out += 1
                else:
                    yield spelled(cleaned) if self._letters else cleaned

    def tell_left_out(self) -> None:
        """Complains of the sentences that could not be cleaned when they were last gone through."""
        if self._left_out:
            complain(
                f"{self._left_out} sentences of {' '.join(self._texts)} were left out: they have digits or other signs "
                "that --clean can't spell"
            )


def _transcripts(source: str, options: argparse.Namespace) -> Iterator[str]:
    from w2v2_jax.data.corpora import default_data_dir, open_split
    from w2v2_jax.data.records import columns

    if source.count("/") != 1:
        raise ValueError(f"there is no file {source}, and it is no DATASET/SPLIT either")
    records = open_split(*dataset(source), options.data_dir or default_data_dir())
    told = zip(*columns(records, "text", "language"), strict=True)
    return (text for text, language in told if options.language in (None, language))


def tune(options: argparse.Namespace) -> int:
    """Looks for the best weights; writes them, a plot of the error rates and, of a beam search, every trial."""
    from w2v2_jax.analysis.surface import plot_surface
    from w2v2_jax.data.corpora import default_data_dir, open_split
    from w2v2_jax.data.records import columns
    from w2v2_jax.evaluation import store_emissions
    from w2v2_jax.recognition import load_recogniser

    if options.lexicon_free:
        raise ValueError("tuning weighs words, which --lexicon-free does not count; give --lm-weight when decoding")
    if options.lm is None:
        raise ValueError("tuning weighs a language model; give one with --lm")
    if options.fuse:
        raise ValueError("a fused search is slow to tune; tune with --rescore, and decode with --fuse and its setting")
    recogniser = load_recogniser(options.checkpoint, options.language)
    checkpoint = f"{options.checkpoint} {recogniser.fingerprint}"
    search = search_of(options, recogniser.vocabulary)
    records = open_split(*options.dataset, options.data_dir or default_data_dir())
    emissions = store_emissions(recogniser, records, options.workdir / "emissions", checkpoint)
    (texts,) = columns(records, "text")
    references = texts[emissions.places].tolist()
    if options.rescore:
        trials = _rescored_trials(options, search, emissions, references)
    else:
        trials = _searched_trials(options, search, emissions, references)
    best = min(trials, key=lambda trial: trial.word_error_rate)
    plot_surface(trials, options.workdir / "surface.png")
    found = {"weights": best.weights._asdict()}
    if options.rescore:
        found = {"weights": search.weights._asdict(), "by_transformer": best.weights._asdict()}
    setting = found | {"word_error_rate": best.word_error_rate, "of": described(options, recogniser.fingerprint)}
    file = options.workdir / "setting.json"
    file.write_text(json.dumps(setting, indent=1) + "\n", encoding="utf-8")
    show(table(f"best of {len(trials)}", best.weights._asdict() | {"word error rate": best.word_error_rate}))
    show(f"Figure: {options.workdir / 'surface.png'}")
    show(
        f"Use it with --lm {options.lm} --setting {file}" + (f" --rescore {options.rescore}" if options.rescore else "")
    )
    return 0


def _searched_trials(options: argparse.Namespace, search: Any, emissions: Any, references: list[str]) -> Any:
    from rich.console import Console
    from rich.progress import track

    from w2v2_jax.decoding.tuning import run_trials

    record = options.workdir / "trials.jsonl"
    running = run_trials(emissions, references, search, record, options.trials, options.seed, num_workers(options))
    return tuple(track(running, "tuning", options.trials, console=Console(stderr=True)))


def _rescored_trials(options: argparse.Namespace, search: Any, emissions: Any, references: list[str]) -> Any:
    """All weights of a grid: nothing has to be searched again for them."""
    from rich.console import Console
    from rich.progress import track

    from w2v2_jax.decoding.rescoring import rescored, tune_rescoring
    from w2v2_jax.decoding.workers import decode_all

    searching = decode_all(search, emissions, num_workers(options))
    n_best = list(track(searching, "searching", len(emissions), console=Console(stderr=True)))
    return tune_rescoring(rescored(n_best, transformer(options.rescore)), references).trials
