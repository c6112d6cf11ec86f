"""What each process of a run gets at each step.

A run on several processes hangs where one of them has another shape than the others at a step, or no batch while they
have one: each would wait for the others in another program.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Int

from w2v2_jax.batches import AudioBatch, LabeledBatch
from w2v2_jax.data.iterators import Host
from w2v2_jax.preflight.soundless import FILLER, Data, utterances_of

Shape = tuple[int, ...]
"""Rows, samples and, where there are labels, labels of a batch."""
NO_BATCH: Shape = ()


class Step(NamedTuple):
    """What a process gets at a step: the shape of its batch, and the utterance in each row or `FILLER`."""

    shape: Shape
    utterances: Int[np.ndarray, " row"]


def training_steps(data: Data, hosts: int, seed: int, num_utterances: int, most: int) -> Iterator[Iterator[Step]]:
    """For each of `hosts` processes its steps of training, until all together had `num_utterances` rows.

    There are `most` steps at most; `data` is soundless.
    """
    first, missing = [], num_utterances
    for step in _endless_steps(data, Host(0, hosts), seed):
        first.append(step)
        missing -= hosts * len(step.utterances)
        if missing <= 0 or len(first) == most:
            break
    yield iter(first)
    for index in range(1, hosts):
        yield itertools.islice(_endless_steps(data, Host(index, hosts), seed), len(first))


def evaluation_steps(data: Data, hosts: int) -> Iterator[Iterator[Step]]:
    """For each of `hosts` processes its steps of an evaluation; `data` is soundless."""
    for index in range(hosts):
        yield _steps(data.epoch_on(Host(index, hosts)))


def _endless_steps(data: Data, host: Host, seed: int) -> Iterator[Step]:
    # Batches that were read ahead of the last one that is looked at are not kept.
    with contextlib.closing(data.batches_on(host, seed)) as batches:
        yield from _steps(batches)


def _steps(batches: Iterable[AudioBatch | LabeledBatch]) -> Iterator[Step]:
    for batch in batches:
        lengths = (array.shape[1] for array in jax.tree.leaves(batch) if array.ndim == 2)
        yield Step((len(batch.num_samples), *lengths), utterances_of(batch))


class Agreement(NamedTuple):
    """How many steps the processes have, the first difference between two of them if there is one, and their rows.

    `times` has by the shape of a process' batch how often each utterance was in one.
    """

    steps: int
    difference: str
    times: dict[Shape, Int[np.ndarray, " utterance"]]


def compare(processes: Iterable[Iterator[Step]], num_utterances: int, advance: Callable[[int], Any]) -> Agreement:
    """Goes through the steps of the processes, one after the other, until one differs from the first.

    `num_utterances` is above the highest number of one; `advance` hears of each step.
    """
    shapes, times = [], {}
    for index, steps in enumerate(processes):
        number = 0
        for number, step in enumerate(steps, start=1):
            if index == 0:
                shapes.append(step.shape)
            wanted = shapes[number - 1] if number <= len(shapes) else NO_BATCH
            if step.shape != wanted:
                return Agreement(number - 1, _told(number - 1, wanted, index, step.shape), times)
            seen = times.setdefault(step.shape, np.zeros(num_utterances, np.int64))
            np.add.at(seen, step.utterances[step.utterances != FILLER], 1)
            advance(1)
        if number < len(shapes):
            return Agreement(number, _told(number, shapes[number], index, NO_BATCH), times)
    return Agreement(len(shapes), "", times)


def _told(step: int, wanted: Shape, process: int, found: Shape) -> str:
    first, other = (" x ".join(map(str, shape)) or "no batch" for shape in (wanted, found))
    return f"step {step}: process 0 has {first}, process {process} has {other}"
