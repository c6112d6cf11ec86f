"""The options by which a command decodes: greedily, or by a beam search with a lexicon and a language model."""

import argparse
import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from w2v2_jax.commands.terminal import given, positive, remark


def add_decoder(parser: argparse.ArgumentParser) -> Any:
    """The group of options; without any of them decoding is greedy."""
    group = parser.add_argument_group(
        "beam search",
        "with --beam alone for the likeliest labels; with a lexicon or a language model it needs the extra decode",
    )
    group.add_argument("--lm", type=Path, metavar="FILE", help="n-gram model: ARPA, also gzipped, or KenLM's binary")
    group.add_argument(
        "--lexicon", type=Path, metavar="FILE", help="words and their letters (default: the words of the model)"
    )
    group.add_argument(
        "--lexicon-free",
        action="store_true",
        default=None,
        help="any words; the model is one of letters, see `w2v2 lm train --letters`, or of phones",
    )
    group.add_argument("--setting", type=Path, metavar="FILE", help="weights that `w2v2 tune` found")
    group.add_argument(
        "--lm-weight",
        type=float,
        metavar="X",
        help="what the last model asked counts (default: 2; 1 for a Transformer)",
    )
    group.add_argument("--word-score", type=float, metavar="X", help="what each word adds (default: -1)")
    group.add_argument(
        "--beam", type=positive, metavar="N", help="hypotheses that go on (default: 500; the paper tests with 1500)"
    )
    group.add_argument("--hotwords", nargs="+", metavar="WORD", help="words that are expected, such as names")
    group.add_argument("--hotword-score", type=float, metavar="X", help="tenfold probability how often (default: 1)")
    group.add_argument("--rescore", metavar="RUN", help="a Transformer language model ranks the 200 best")
    group.add_argument("--fuse", metavar="RUN", help="a Transformer language model is asked for every word; slow")
    group.add_argument("--workers", type=positive, metavar="N", help="processes that search (default: one a core)")
    return group


CHOICES = (
    "lm", "lexicon", "lexicon_free", "setting", "lm_weight", "word_score", "beam", "hotwords", "hotword_score",
    "rescore", "fuse",
)  # fmt: skip
"""The options on which it depends what is recognised."""

N_BEST = 200
BY_TRANSFORMER = {"lm_weight": 1.0, "word_score": -1.0}


def described(options: argparse.Namespace, fingerprint: str) -> str:
    """The checkpoint, the fingerprint of what it holds, and the choices of decoding, for people to compare."""
    chosen = given(options, *CHOICES)
    if options.setting:
        chosen["setting"] = _tuned(options)
    choices = (f"{name}={chosen[name]}" for name in sorted(chosen))
    return " ".join(filter(None, [options.checkpoint, fingerprint, options.language, *choices]))


def num_workers(options: argparse.Namespace) -> int:
    """Processes that search."""
    return options.workers or os.cpu_count() or 1


def decoder_of(options: argparse.Namespace, vocabulary: Any) -> Any:
    """What `add_decoder`'s options ask for, as the decoder of a recogniser.

    Raises:
        ValueError: for options that need a language model or lexicon where none is given, or exclude each other.
    """
    from w2v2_jax.decoding.pieces import InPieces

    if options.lm is None and options.lexicon is None:
        return _by_frames_alone(options)
    if options.rescore and options.fuse:
        raise ValueError("--rescore and --fuse are two ways of asking a Transformer; give one of them")
    if options.lexicon_free and options.fuse:
        raise ValueError("--fuse asks a Transformer for words, which --lexicon-free does not know; give --rescore")
    return InPieces(_searching(options, search_of(options, vocabulary)))


def _searching(options: argparse.Namespace, search: Any) -> Any:
    from w2v2_jax.decoding.fusion import InNats
    from w2v2_jax.decoding.hypotheses import Weights
    from w2v2_jax.decoding.searched import Fused, Rescored, Searched

    if not (options.rescore or options.fuse):
        return Searched(search, num_workers(options))
    tuned = _tuned(options).get("by_transformer", BY_TRANSFORMER)
    weights = Weights(**tuned | given(options, "lm_weight", "word_score"))
    if options.rescore:
        n_best = given(options, "n_best")
        return Rescored(search, transformer(options.rescore), weights, num_workers(options), **n_best)
    fused = dataclasses.replace(search, model=InNats(search.model), weights=weights)
    return Fused(fused, transformer(options.fuse).next_word)


def _by_frames_alone(options: argparse.Namespace) -> Any:
    from w2v2_jax.decoding.greedy import greedy
    from w2v2_jax.decoding.likeliest import Likeliest

    if useless := given(options, *CHOICES, "workers").keys() - {"beam"}:
        name = min(useless).replace("_", "-")
        raise ValueError(f"--{name} is for a search with a model; give it a language model with --lm or a --lexicon")
    if options.beam is None:
        if given(options, "n_best"):
            raise ValueError("without a search there is one transcript; give --n-best a --beam, such as 100")
        return greedy
    return Likeliest(**given(options, "beam", "n_best"))


def transformer(run: str) -> Any:
    """The language model of a run."""
    from w2v2_jax.language_scorer import load_language_model

    return load_language_model(run)


def search_of(options: argparse.Namespace, vocabulary: Any) -> Any:
    """The beam search that the options ask for; with `--rescore` the one whose best are ranked anew."""
    from w2v2_jax.decoding.beam import BeamSearch, LexiconFreeSearch
    from w2v2_jax.decoding.hypotheses import Weights
    from w2v2_jax.decoding.language_models import HotWords, NGramFile, NoModel

    changed = {} if options.rescore else given(options, "lm_weight", "word_score")
    wanted = given(options, "beam", "n_best")
    if options.rescore:
        wanted["n_best"] = min(max(N_BEST, wanted.get("n_best", 1)), wanted.get("beam", N_BEST))
    if options.lexicon_free:
        weights = Weights(**{"word_score": 0.0} | _tuned(options).get("weights", {}) | changed)
        return LexiconFreeSearch(vocabulary, _letters(options, vocabulary), weights=weights, **wanted)
    lexicon = _lexicon(options, vocabulary)
    model = NoModel() if options.lm is None else NGramFile(options.lm)
    if options.hotwords:
        score = {} if options.hotword_score is None else {"score": options.hotword_score}
        model = HotWords(model, tuple(options.hotwords), **score)
        lexicon = lexicon.with_words(options.hotwords, vocabulary)
    weights = Weights(**_tuned(options).get("weights", {}) | changed)
    return BeamSearch(vocabulary, model, lexicon, weights=weights, **wanted)


def _lexicon(options: argparse.Namespace, vocabulary: Any) -> Any:
    """The words to recognise; says how many of the model's these are."""
    from w2v2_jax.decoding.language_models import arpa_words, num_known
    from w2v2_jax.decoding.lexicon import lexicon_of_words, read_lexicon

    if options.lexicon is None:
        if _is_binary(options.lm):
            raise ValueError(f"{options.lm} is binary and tells no words; give the --lexicon, or its ARPA file")
        words = tuple(arpa_words(options.lm))
        lexicon = lexicon_of_words(words, vocabulary)
        written = f"{len(lexicon.words):,} of {len(words):,} words"
        remark(f"{options.lm}: {written} can be written in the labels of the checkpoint")
        return lexicon
    lexicon = read_lexicon(options.lexicon, vocabulary)
    if options.lm is not None:
        known = num_known(options.lm, lexicon.words)
        remark(f"{options.lm} knows {known:,} of {len(lexicon.words):,} words of {options.lexicon}")
    return lexicon


def _letters(options: argparse.Namespace, vocabulary: Any) -> Any:
    """The model of labels that the options name; says how many it knows."""
    from w2v2_jax.decoding.language_models import NGramFile, num_known

    if useless := given(options, "lexicon", "hotwords", "hotword_score"):
        raise ValueError(f"--{min(useless).replace('_', '-')} has no use with --lexicon-free; leave one of them out")
    known = num_known(options.lm, vocabulary.ids)
    remark(f"{options.lm} knows {known} of {len(vocabulary.ids)} labels of the checkpoint")
    return NGramFile(options.lm)


def _tuned(options: argparse.Namespace) -> dict[str, Any]:
    """What `w2v2 tune` wrote."""
    from w2v2_jax.decoding.hypotheses import Weights

    if options.setting is None:
        return {}
    try:
        found = json.loads(options.setting.read_text("utf-8"))
        tuned = {"by_transformer": BY_TRANSFORMER} | found
        return {name: Weights(**tuned[name])._asdict() for name in ("weights", "by_transformer")}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{options.setting} is no setting: {error}; give what `w2v2 tune` wrote") from error


def _is_binary(path: Path) -> bool:
    if not path.exists():
        return False
    with path.open("rb") as file:
        return file.read(4) == b"mmap"
