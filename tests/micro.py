"""Experiments so small that they compile in seconds and train in milliseconds a step, on tones kept in memory."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import Mesh

from w2v2_jax.batches import AudioBatch, LabeledBatch
from w2v2_jax.context_network import ContextNetwork, PositionalConv, PostNormLayer
from w2v2_jax.data.text import SPECIALS, WORD_END, Vocabulary
from w2v2_jax.experiment import Experiment
from w2v2_jax.feature_encoder import FeatureEncoder
from w2v2_jax.masking import MaskSpans
from w2v2_jax.metrics import TIMED, read_rows
from w2v2_jax.model import CTCModel, PretrainingModel, Wav2Vec2
from w2v2_jax.optimizers import Adam, PolynomialDecay
from w2v2_jax.quantizer import GumbelQuantizer
from w2v2_jax.step import Program, TrainState, make_program
from w2v2_jax.tasks import NO_MASK, CTCFinetuning, Pretraining
from w2v2_jax.train import train

CONV_LAYERS = ((8, 10, 5), (8, 3, 2), (8, 2, 2))  # a frame sees 30 samples and starts 20 after the one before
VOCABULARY = Vocabulary((*SPECIALS, WORD_END, "A", "B", "C"))
PERIODS = (4, 6, 9, 14, 21)  # of the notes, in samples


def tone(period: int, num_samples: int) -> np.ndarray:
    return np.sin(2 * math.pi / period * np.arange(num_samples)).astype(np.float32)


class InMemory:
    """The Dataset protocol over `num_clips` clips, which `batch` makes from their numbers; others are filler."""

    def batches(self, seed: int) -> "Endless":
        return Endless(self, seed)

    def epoch(self) -> Iterator[AudioBatch | LabeledBatch]:
        for first in range(0, self.num_clips, self.batch_size):
            yield self.batch(self.share(np.arange(first, first + self.batch_size)))

    def shapes(self) -> tuple[AudioBatch | LabeledBatch, ...]:
        batch = self.batch(np.arange(self.batch_size))
        return (jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch),)

    def summary(self) -> dict[str, int]:
        return {"clips": self.num_clips, "batch_size": self.batch_size}

    def share(self, rows: np.ndarray) -> np.ndarray:
        return np.split(rows, jax.process_count())[jax.process_index()]


class Endless:
    """Clips at random, as a function of the seed and the number of the batch."""

    def __init__(self, data: InMemory, seed: int):
        self.data, self.seed, self.step = data, seed, 0

    def __next__(self) -> AudioBatch | LabeledBatch:
        rng = np.random.default_rng((self.seed, self.step))
        self.step += 1
        return self.data.batch(self.data.share(rng.permuted(np.arange(self.data.batch_size) % self.data.num_clips)))

    def get_state(self) -> dict[str, int]:
        return {"step": self.step}

    def set_state(self, state: dict[str, int]) -> None:
        self.step = state["step"]


@dataclasses.dataclass(frozen=True)
class Melodies(InMemory):
    """Clips that repeat a short melody of their own, each note three frames long; lengths differ."""

    batch_size: int = 8
    num_clips: int = 8
    num_samples: int = 400

    def batch(self, clips: np.ndarray) -> AudioBatch:
        waveform = np.zeros((len(clips), self.num_samples), np.float32)
        num_samples = np.zeros(len(clips), np.int32)
        for row, clip in enumerate(clips):
            if clip < self.num_clips:
                notes = np.random.default_rng(int(clip)).permutation(PERIODS)
                melody = np.concatenate([tone(period, 60) for period in notes])
                num_samples[row] = self.num_samples - 20 * (clip % 4)
                waveform[row, : num_samples[row]] = np.resize(melody, num_samples[row])
        return AudioBatch(waveform, num_samples)


@dataclasses.dataclass(frozen=True)
class Spelled(InMemory):
    """Texts of A, B and C: each letter is a note of eight frames, the end of a word is silence."""

    texts: tuple[str, ...] = ("AB CA", "CAB", "B", "CC A")
    batch_size: int = 8
    num_samples: int = 1200
    max_labels: int = 8

    @property
    def num_clips(self) -> int:
        return len(self.texts)

    def batch(self, clips: np.ndarray) -> LabeledBatch:
        waveform = np.zeros((len(clips), self.num_samples), np.float32)
        labels = np.zeros((len(clips), self.max_labels), np.int32)
        num_samples, num_labels = np.zeros((2, len(clips)), np.int32)
        for row, clip in enumerate(clips):
            if clip < self.num_clips:
                encoded = VOCABULARY.encode(self.texts[clip])
                notes = [tone((2**20, *PERIODS)[label - len(SPECIALS)], 160) for label in encoded]
                num_labels[row], num_samples[row] = len(encoded), 160 * len(encoded)
                labels[row, : num_labels[row]] = encoded
                waveform[row, : num_samples[row]] = np.concatenate(notes)
        return LabeledBatch(waveform, num_samples, labels, num_labels)


@dataclasses.dataclass(frozen=True)
class Normalised(Spelled):
    """Data that says what a recogniser must know of it."""

    normalise: bool = True


@dataclasses.dataclass(frozen=True)
class Watched:
    """Another dataset; `watch` hears before each batch how many there have been."""

    data: InMemory
    watch: Callable[[int], None]

    def batches(self, seed):
        return WatchedBatches(self.data.batches(seed), self.watch)

    def epoch(self):
        return self.data.epoch()

    def shapes(self):
        return self.data.shapes()

    def summary(self):
        return self.data.summary()


class WatchedBatches:
    def __init__(self, batches, watch):
        self.batches, self.watch = batches, watch
        self.get_state, self.set_state = batches.get_state, batches.set_state

    def __next__(self):
        self.watch(self.batches.get_state()["step"])
        return next(self.batches)


def encoder(dropout: float = 0.0, layer_drop: float = 0.0, **settings) -> Wav2Vec2:
    layer = PostNormLayer(num_heads=2, ffn_dim=32, dropout=dropout, attention_dropout=dropout)
    context = ContextNetwork(2, layer, position=PositionalConv(8, 2), dropout=dropout, layer_drop=layer_drop)
    return Wav2Vec2(FeatureEncoder(CONV_LAYERS), context, embed_dim=16, input_dropout=dropout, **settings)


def pretraining_task(dropout: float = 0.0, layer_drop: float = 0.0, **settings) -> Pretraining:
    quantizer = GumbelQuantizer(dim=8, num_groups=2, num_entries=6)
    model = PretrainingModel(encoder(dropout, layer_drop), quantizer, feature_dropout=dropout)
    return Pretraining(model, **{"time_mask": MaskSpans(0.5, 3, 2), "num_distractors": 10, **settings})


def ctc_task(dropout: float = 0.0, layer_drop: float = 0.0, **settings) -> CTCFinetuning:
    model = CTCModel(encoder(dropout, layer_drop), len(VOCABULARY), output_dropout=dropout)
    masks = {"time_mask": MaskSpans(0.3, 3, 1), "channel_mask": MaskSpans(0.25, 4, 0)}
    return CTCFinetuning(model, VOCABULARY, **masks | settings)


def unmasked_ctc_task() -> CTCFinetuning:
    return ctc_task(time_mask=NO_MASK, channel_mask=NO_MASK)


def pretraining(**changes) -> Experiment:
    """With everything random on."""
    return experiment("pretraining", pretraining_task(dropout=0.2, layer_drop=0.3), Melodies(), **changes)


def finetuning(**changes) -> Experiment:
    """With everything random on."""
    return experiment("finetuning", ctc_task(dropout=0.2, layer_drop=0.3), Spelled(), **changes)


def experiment(name: str, task: Pretraining | CTCFinetuning, data: InMemory, **changes) -> Experiment:
    made = Experiment(
        name=name,
        task=task,
        train_data=data,
        valid_data=dataclasses.replace(data, batch_size=16),
        optimizer=Adam(PolynomialDecay(peak=1e-2, warmup_steps=2)),
        num_steps=12,
        log_every=3,
        eval_every=5,
        save_every=2,
    )
    return dataclasses.replace(made, **changes)


def run(make: Callable[..., Experiment], workdir: Path, devices: int | None = None, **changes) -> TrainState:
    """Trains quietly; in a process of its own, if one is asked for this. Programs are traced and compiled once."""
    jax.config.update("jax_disable_most_optimizations", True)
    with mock.patch("w2v2_jax.train.make_program", _program):
        return train(make(**changes), workdir, quiet=True, devices=jax.devices()[:devices])


_PROGRAMS: dict[tuple[str, Mesh], tuple[Experiment, Program]] = {}


def _program(experiment: Experiment, mesh: Mesh) -> Program:
    parts = (experiment.task, experiment.optimizer, experiment.num_steps, experiment.seed)
    told = repr((*parts, experiment.accumulation_steps, experiment.rules))
    if (told, mesh) not in _PROGRAMS:
        # With the experiment, so that what is told by its address stays the only one there.
        _PROGRAMS[told, mesh] = experiment, make_program(experiment, mesh)
    return _PROGRAMS[told, mesh][1]


def metric_rows(workdir: Path) -> list[dict[str, float]]:
    """All rows of a run but for what they say of time."""
    rows = read_rows(workdir / "metrics.jsonl")
    return [{name: value for name, value in row.items() if name not in TIMED} for row in rows]


def assert_same_run(workdir: Path, other: Path) -> None:
    """Equal to the last bit: parameters, moments and all else of the newest checkpoint, data position, metrics."""
    ours, theirs = newest(workdir), newest(other)
    assert ours.name == theirs.name
    arrays, expected = (ocp.PyTreeCheckpointHandler().restore(folder / "state") for folder in (ours, theirs))
    assert arrays.keys() == expected.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)
    assert (ours / "place" / "metadata").read_text() == (theirs / "place" / "metadata").read_text()
    assert metric_rows(workdir) == metric_rows(other)


def newest(workdir: Path) -> Path:
    return max((workdir / "checkpoints").iterdir(), key=lambda folder: int(folder.name)).absolute()
