"""Checks of an experiment's batches before it is launched: what they hold, and that all processes get the same."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from w2v2_jax.data.audio import SAMPLE_RATE
from w2v2_jax.data.pipeline import Clips, Transcribed
from w2v2_jax.data.records import columns
from w2v2_jax.experiment import Experiment, sets_of
from w2v2_jax.preflight.checks import Check, Verdict, search
from w2v2_jax.preflight.hosts import Agreement, compare, evaluation_steps, training_steps
from w2v2_jax.preflight.scan import Scanned
from w2v2_jax.preflight.soundless import Data, Known, soundless
from w2v2_jax.preflight.text_checks import PAPER, Labels, vocabulary_check
from w2v2_jax.tasks import CTCFinetuning

BASE_HOURS = 1.6
"""Audio of an update of BASE in section 4.2 of the paper."""


class Batching(NamedTuple):
    """What was found of an experiment's batches.

    `edges` are the seconds that those of training are padded to, `rows` how many each process has to decode for an
    update; nothing and 0 where it ends before there is a batch.
    """

    checks: Sequence[Check]
    edges: Sequence[float]
    rows: float


def check_kinds(experiment: Experiment) -> None:
    """Raises ValueError for data of which it isn't known what each process gets."""
    for data in (experiment.train_data, *(each.data for each in sets_of(experiment.valid_data))):
        if not isinstance(data, Data):
            raise ValueError(
                f"{experiment.name} learns from {type(data).__name__}, of which it isn't known what each process gets; "
                "give an experiment with Clips or Transcribed, or none"
            )


def labels_of(experiment: Experiment) -> Labels:
    """How the experiment spells texts and frames sound; as in the paper where it has no use for texts."""
    if not isinstance(experiment.train_data, Transcribed):
        return PAPER
    task = experiment.task
    num_frames = task.model.encoder.num_frames if isinstance(task, CTCFinetuning) else PAPER.num_frames
    return Labels(experiment.train_data.vocabulary, num_frames)


def vocabulary_checks(data: Data, scanned: Sequence[Scanned]) -> list[Check]:
    """What the texts of a corpus have that isn't in the vocabulary of an experiment's data, if it has one."""
    return [vocabulary_check(scanned, data.vocabulary)] if isinstance(data, Transcribed) else []


def feeding_checks(batching: Batching, utterances_per_second: float) -> list[Check]:
    """How short an update may be that every process still has its next batch in time for."""
    if not batching.rows:
        return []
    told = f"{batching.rows:.4g} utterances a process, decoded as quickly as here"
    return [Check("train: shortest update fed", Verdict.INFO, batching.rows / utterances_per_second, "s", (told,))]


def check_batches(experiment: Experiment, hosts: int, advance: Callable[[int], Any]) -> Batching:
    """What batches hold, and what each of `hosts` processes gets in an epoch of training and in an evaluation.

    Nothing is decoded. `advance` hears of the steps as they are compared. What a run would end with is an error.
    """
    training = _unless_it_ends("train", _look_at_training, experiment, hosts, advance)
    evaluations = (
        _unless_it_ends(f"valid {name}".rstrip(), _look_at_evaluation, data, hosts, advance)
        for name, data in sets_of(experiment.valid_data)
    )
    return training._replace(checks=[*training.checks, *(check for each in evaluations for check in each.checks)])


def _unless_it_ends(name: str, look: Callable[..., Batching], *looked_at: Any) -> Batching:
    """What `look` finds, or what a run would end with instead."""
    try:
        return look(name, *looked_at)
    except ValueError as error:
        return Batching([Check(f"{name}: batches", Verdict.ERROR, 1, "errors", (str(error),))], (), 0.0)


def _look_at_training(name: str, experiment: Experiment, hosts: int, advance: Callable[[int], Any]) -> Batching:
    data, known = _without_sound(experiment.train_data)
    uneven = _uneven(name, data, hosts)
    sharing = hosts if uneven.verdict == Verdict.SOUND else 1
    kept = data.summary()["utterances"]
    processes = training_steps(data, sharing, experiment.seed, kept, experiment.num_steps)
    agreement = compare(processes, len(known.id), advance)
    in_step = _in_step(name, hosts, sharing, agreement, [])
    if agreement.difference:
        return Batching([uneven, *in_step], (), 0.0)
    rows = sum(int(times.sum()) for times in agreement.times.values()) / agreement.steps
    checks = [
        _left_out(name, data, known),
        *_padding(name, known, sharing, agreement),
        _audio(known, agreement),
        _updates(kept / rows, experiment.num_steps),
        uneven,
        *in_step,
    ]
    return Batching(checks, sorted({shape[1] / SAMPLE_RATE for shape in agreement.times}), rows / hosts)


def _look_at_evaluation(name: str, valid_data: Data, hosts: int, advance: Callable[[int], Any]) -> Batching:
    data, known = _without_sound(valid_data)
    uneven = _uneven(name, data, hosts)
    sharing = hosts if uneven.verdict == Verdict.SOUND else 1
    agreement = compare(evaluation_steps(data, sharing), len(known.id), advance)
    left_out = _left_out(name, data, known)
    in_step = _in_step(name, hosts, sharing, agreement, _not_once(known, left_out, agreement))
    return Batching([left_out, *_padding(name, known, sharing, agreement), uneven, *in_step], (), 0.0)


def _not_once(known: Known, left_out: Check, agreement: Agreement) -> Iterator[str]:
    """What isn't evaluated once, though it isn't left out."""
    times = sum(agreement.times.values(), np.zeros(len(known.id), np.int64))
    for each in np.flatnonzero(times > 1):
        yield f"{known.id[each]} is evaluated {times[each]} times"
    if missing := len(known.id) - int(left_out.number) - np.count_nonzero(times):
        yield f"{missing} utterances are not evaluated"


def _without_sound(data: Data) -> tuple[Data, Known]:
    known = Known(*columns(data.source.records(), *Known._fields))
    return soundless(data, known), known


def _left_out(name: str, data: Data, known: Known) -> Check:
    """Utterances that are in no batch, the shortest first; such as can't be transcribed are an error instead."""
    shortest = data.min_samples if isinstance(data, Clips) else 0
    short = known.num_samples < shortest
    found = sorted(zip(known.num_samples[short].tolist(), known.id[short], strict=True))
    told = (f"{each}: {_seconds(num_samples)}" for num_samples, each in found)
    return search(f"{name}: left out, too short", Verdict.INFO, told)


def _padding(name: str, known: Known, hosts: int, agreement: Agreement) -> Iterator[Check]:
    """For each shape of a batch how much of it is no sound, filler included."""
    for (rows, longest, *_), times in sorted(agreement.times.items()):
        filled = float(times @ np.minimum(known.num_samples, longest) / (times.sum() * longest))
        told = f"{int(times.sum()):,} utterances in batches of {rows * hosts} x {_seconds(longest)}"
        yield Check(f"{name}: padding to {_seconds(longest)}", Verdict.INFO, 100 * (1 - filled), "%", (told,))


def _audio(known: Known, agreement: Agreement) -> Check:
    """How much an update hears."""
    held = sum(int(times @ np.minimum(known.num_samples, shape[1])) for shape, times in agreement.times.items())
    told = f"without padding; BASE has {BASE_HOURS} h"
    return Check("train: audio an update", Verdict.INFO, held / agreement.steps / SAMPLE_RATE / 3600, "h", (told,))


def _updates(an_epoch: float, num_steps: int) -> Check:
    """How many updates there are until as many utterances were drawn as there are."""
    verdict = Verdict.INFO if an_epoch >= 1 else Verdict.WARNING
    told = f"{num_steps:,} updates are {num_steps / an_epoch:,.4g} epochs"
    return Check("train: updates an epoch", verdict, an_epoch, "updates", (told,))


def _uneven(name: str, data: Data, hosts: int) -> Check:
    """Batches that processes can't share equally."""
    shapes = [batch.samples.shape for batch in data.shapes()]
    told = (
        f"{rows} rows of {_seconds(length)}: make it a multiple of {hosts}" for rows, length in shapes if rows % hosts
    )
    return search(f"{name}: uneven for {_processes(hosts)}", Verdict.ERROR, told, "batch sizes")


def _in_step(name: str, hosts: int, sharing: int, agreement: Agreement, defects: Iterable[str]) -> Iterator[Check]:
    """Whether all processes have the same shapes at each step; nothing where they can't share the batches."""
    if sharing == hosts:
        cases = (agreement.difference,) if agreement.difference else tuple(defects)
        verdict = Verdict.ERROR if cases else Verdict.SOUND
        yield Check(f"{name}: {_processes(hosts)} in step", verdict, agreement.steps, "steps", cases)


def _processes(hosts: int) -> str:
    return f"{hosts} process{'es' * (hosts != 1)}"


def _seconds(num_samples: int) -> str:
    return f"{num_samples / SAMPLE_RATE:.2f} s"
