"""The weights of a beam search that give the fewest word errors, found as the paper does: in 128 guided trials."""

import dataclasses
import json
import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from w2v2_jax.decoding.beam import BeamSearch, LogProbs
from w2v2_jax.decoding.hypotheses import Weights
from w2v2_jax.decoding.language_models import optional
from w2v2_jax.decoding.scoring import count_words, total
from w2v2_jax.decoding.workers import Workers

LM_WEIGHTS = (0.0, 5.0)
WORD_SCORES = (-5.0, 5.0)


class Trial(NamedTuple):
    """Weights and the word error rate they gave, as a share of the words of the references."""

    weights: Weights
    word_error_rate: float


class Tuned(NamedTuple):
    """The first of the best trials, and all of them in their order."""

    weights: Weights
    word_error_rate: float
    trials: tuple[Trial, ...]


class RecordError(ValueError):
    """A record of trials that others have made than those to go on with."""


def tune(
    log_probs: Sequence[LogProbs],
    references: Sequence[str],
    search: BeamSearch,
    record: str | Path,
    num_trials: int = 128,
    seed: int = 0,
    num_workers: int = 1,
) -> Tuned:
    """The best weights among `num_trials`; see `run_trials`, which shows progress."""
    trials = tuple(run_trials(log_probs, references, search, record, num_trials, seed, num_workers))
    best = min(trials, key=lambda trial: trial.word_error_rate)
    return Tuned(best.weights, best.word_error_rate, trials)


def run_trials(
    log_probs: Sequence[LogProbs],
    references: Sequence[str],
    search: BeamSearch,
    record: str | Path,
    num_trials: int = 128,
    seed: int = 0,
    num_workers: int = 1,
) -> Iterator[Trial]:
    """Decodes all clips with one setting of the weights after another and gives each with its word error rate.

    The first weights are those of `search`, the next are drawn and then guided by what the earlier ones gave, by a
    tree-structured Parzen estimator (Bergstra et al. 2011), out of `LM_WEIGHTS` and `WORD_SCORES`, the paper's ranges.
    `log_probs` is gone through once a trial and may lie on disk; lexicon and model are loaded once a worker.

    `record` is a JSONL file that gains a line a trial. If it exists, its trials are given again and not run: a run
    that was killed goes on, and ends as it would have.

    Raises:
        RecordError: if the record is of other references, another search, or another seed.
        ValueError: if references and clips differ in number or there is no word in them, or for weights of `search`
            out of range.
    """
    reference_words = _check(log_probs, references, search.weights, num_trials)
    optuna = optional("optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    uniform = optuna.distributions.FloatDistribution
    ranges = {"lm_weight": uniform(*LM_WEIGHTS), "word_score": uniform(*WORD_SCORES)}
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
    study.enqueue_trial(search.weights._asdict())
    done = _open_record(Path(record), _setting(references, search, seed))

    with Workers(search, num_workers) as workers:
        for number in range(num_trials):
            asked = study.ask(ranges)
            weights = Weights(**asked.params)
            if number < len(done):
                trial = done[number]
                _check_replay(trial, weights, number, record)
            else:
                hypotheses = workers.decode(log_probs, weights)
                pairs = zip(references, hypotheses, strict=True)
                errors = total([count_words(reference, found[0].text) for reference, found in pairs]).errors
                trial = Trial(weights, errors / reference_words)
                _append(Path(record), {**weights._asdict(), "word_error_rate": trial.word_error_rate})
            study.tell(asked, trial.word_error_rate)
            yield trial


def _check(log_probs: Sequence[LogProbs], references: Sequence[str], weights: Weights, num_trials: int) -> int:
    if len(log_probs) != len(references):
        raise ValueError(f"{len(references)} references cannot be those of {len(log_probs)} clips; give one for each")
    for name, value, (low, high) in zip(weights._fields, weights, (LM_WEIGHTS, WORD_SCORES), strict=True):
        if not low <= value <= high:
            raise ValueError(f"tuning starts from the search's {name}={value}; give one from {low:g} to {high:g}")
    if num_trials < 1:
        raise ValueError(f"{num_trials} trials find nothing; give 1 or more")
    words = sum(len(reference.split()) for reference in references)
    if words == 0:
        raise ValueError(f"the {len(references)} references have no words; tuning needs transcribed clips")
    return words


def _setting(references: Sequence[str], search: BeamSearch, seed: int) -> dict[str, Any]:
    """What must be equal for trials to be comparable."""
    options = {
        field.name: getattr(search, field.name)
        for field in dataclasses.fields(search)
        if isinstance(getattr(search, field.name), int | float)
    }
    return {
        "seed": seed,
        "start": search.weights._asdict(),
        "model": repr(search.model),
        "lexicon_words": len(search.lexicon.spellings),
        **options,
        "clips": len(references),
        "references_crc32": zlib.crc32("\n".join(references).encode()),
    }


def _open_record(path: Path, setting: dict[str, Any]) -> list[Trial]:
    """The trials in a record, which is begun if need be; a line cut short by the end of a run is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = path.read_text("utf-8") if path.exists() else ""
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        os.truncate(path, len(whole.encode()))
    if not whole:
        _append(path, setting)
        return []
    try:
        first, *rows = map(json.loads, whole.splitlines())
        differing = [name for name in setting if first.get(name) != setting[name]]
        trials = [Trial(Weights(row["lm_weight"], row["word_score"]), row["word_error_rate"]) for row in rows]
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise RecordError(f"{path} is no record of trials: {error}; give another file") from error
    if differing:
        name = differing[0]
        raise RecordError(
            f"{path} has trials with {name}={first.get(name)!r}, now it is {setting[name]!r}; give another file"
        )
    return trials


def _check_replay(trial: Trial, weights: Weights, number: int, record: str | Path) -> None:
    if trial.weights != weights:
        raise RecordError(
            f"trial {number} in {record} has {trial.weights}, but {weights} comes next here: another version of Optuna "
            f"has drawn it; use that one or give another file"
        )


def _append(path: Path, row: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
        file.flush()
        os.fsync(file.fileno())
