"""From speech to text: `load_recogniser("runs/finetune_base").transcribe_files(["a.wav", "b.flac"])`."""

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float32, Int, PyTree

from w2v2_jax import frames
from w2v2_jax.batches import AudioBatch
from w2v2_jax.data.audio import SAMPLE_RATE, AudioError, Waveform, normalise, read_audio
from w2v2_jax.data.buckets import round_up
from w2v2_jax.data.text import Vocabulary
from w2v2_jax.decoding.greedy import GreedyPath, greedy_decode
from w2v2_jax.model import CTCModel
from w2v2_jax.pretrained import open_any, placed
from w2v2_jax.sharding import make_mesh, put_batch
from w2v2_jax.tasks import CTCFinetuning

WINDOW = 256
"""Waveforms that are looked at together, to batch those of about equal length."""
MIN_PADDED = 2**16
BATCH_SAMPLES = 2**22
"""Most samples of a batch, padding included, unless one clip has more: activations of BASE then take some 10 GB."""


class NotARecogniserError(ValueError):
    """A checkpoint of something that doesn't write text, such as pretraining."""


class Word(NamedTuple):
    """A word and when it was recognised, in seconds from the start of the clip."""

    text: str
    start: float
    end: float


class Transcript(NamedTuple):
    """What was recognised in a clip of `seconds`: its words, and the log probability of the best path in nats."""

    words: tuple[Word, ...]
    seconds: float
    log_prob: float

    @property
    def text(self) -> str:
        """The words with a space between them."""
        return " ".join(word.text for word in self.words)


@dataclasses.dataclass(frozen=True, eq=False)
class Recogniser:
    """A fine-tuned model with its parameters. With `normalise` it expects waveforms of mean 0 and variance 1."""

    task: CTCFinetuning
    params: PyTree
    normalise: bool

    def transcribe(self, waveforms: Iterable[Float32[np.ndarray, " _"]]) -> Iterator[Transcript]:
        """The transcript of each 16 kHz waveform, in their order and as it comes; normalises them if need be.

        Clips of about equal length share a batch, padded to a power of two, so that few shapes are compiled however
        many lengths there are. Batches are cut over the devices of this process.

        Raises:
            AudioError: for a waveform shorter than the receptive field of a frame, naming its place.
        """
        numbered = enumerate(waveforms)
        while window := list(itertools.islice(numbered, WINDOW)):
            for number, waveform in window:
                self._check_length(number, len(waveform))
            yield from self._transcribe_window([waveform for _, waveform in window])

    def transcribe_files(
        self, files: Iterable[str | Path], max_seconds: float = 120.0
    ) -> Iterator[tuple[str | Path, Transcript | AudioError]]:
        """Each file with its transcript, or with what is wrong with it, in their order.

        Anything that soundfile reads will do; it is resampled to 16 kHz and its channels are averaged. Attention is
        over the whole clip, so memory grows with the square of `max_seconds`.
        """
        pending = iter(files)
        while window := list(itertools.islice(pending, WINDOW)):
            audio = [_read(file, max_seconds) for file in window]
            transcripts = self.transcribe(each for each in audio if not isinstance(each, AudioError))
            for file, each in zip(window, audio, strict=True):
                yield file, each if isinstance(each, AudioError) else next(transcripts)

    def _check_length(self, number: int, num_samples: int) -> None:
        needed = self.task.model.encoder.receptive_field
        if num_samples < needed:
            raise AudioError(f"too short: waveform {number} has {num_samples} samples; a frame needs {needed}")

    def _transcribe_window(self, waveforms: Sequence[Float32[np.ndarray, " _"]]) -> list[Transcript]:
        transcripts: dict[int, Transcript] = {}
        for places, shape in _plan([len(waveform) for waveform in waveforms], jax.local_device_count()):
            batch = AudioBatch(np.zeros(shape, np.float32), np.zeros(shape[0], np.int32))
            for row, place in enumerate(places):
                waveform = waveforms[place]
                batch.waveform[row, : len(waveform)] = normalise(waveform) if self.normalise else waveform
                batch.num_samples[row] = len(waveform)
            path = jax.device_get(self._recognise(self.params, put_batch(batch, _mesh())))
            for row, place in enumerate(places):
                transcripts[place] = self._transcript(path, row, int(batch.num_samples[row]))
        return [transcripts[place] for place in range(len(waveforms))]

    @functools.cached_property
    def _recognise(self):
        return jax.jit(
            lambda params, batch: greedy_decode(
                self.task.logits(params, batch), self.task.num_frames(batch), self.task.vocabulary.blank_id
            )
        )

    def _transcript(self, path: GreedyPath, row: int, num_samples: int) -> Transcript:
        labels, num_labels, starts, stops = (np.asarray(x)[row] for x in path.collapsed)
        layers = self.task.model.encoder.feature_encoder.layers
        seconds_per_frame = (frames.num_samples(2, layers) - frames.num_samples(1, layers)) / SAMPLE_RATE
        words = words_in(self.task.vocabulary, labels[:num_labels], starts, stops, seconds_per_frame)
        return Transcript(words, num_samples / SAMPLE_RATE, float(path.log_probs[row]))


def words_in(
    vocabulary: Vocabulary,
    labels: Int[np.ndarray, " label"],
    starts: Int[np.ndarray, " frame"],
    stops: Int[np.ndarray, " frame"],
    seconds_per_frame: float,
) -> tuple[Word, ...]:
    """The words that labels spell: label i is heard from frame `starts[i]` up to, not including, `stops[i]`."""
    ends = [place for place, label in enumerate(labels) if label == vocabulary.word_end_id]
    bounds = zip([0, *(end + 1 for end in ends)], [*ends, len(labels)], strict=True)
    return tuple(
        Word(
            text,
            round(float(starts[first]) * seconds_per_frame, 3),
            round(float(stops[last - 1]) * seconds_per_frame, 3),
        )
        for first, last in bounds
        if (text := vocabulary.decode(labels[first:last]))
    )


def load_recogniser(path: str | Path, language: str = "") -> Recogniser:
    """The recogniser in whatever `from_pretrained` reads, such as the folder of a run or one of transformers.

    Raises:
        FormatError: for anything else.
        NotARecogniserError: for a network without a CTC head, such as that of pretraining.
    """
    weights = open_any(path, language)
    card = weights.card
    if not isinstance(card.model, CTCModel):
        raise NotARecogniserError(
            f"{path} is a checkpoint of {type(card.model).__name__}, which writes no text; fine-tune it on transcripts "
            f"first, in an experiment with init_from=WarmStart({str(path)!r})"
        )
    params = weights.read(placed(card.model))
    task = CTCFinetuning(card.model, card.vocabulary, card.time_mask, card.channel_mask)
    return Recogniser(task, params, card.normalise)


def _mesh():
    return make_mesh(jax.local_devices())


def _read(file: str | Path, max_seconds: float) -> Waveform | AudioError:
    try:
        return read_audio(file, max_seconds)
    except AudioError as error:
        return error


def _plan(lengths: Sequence[int], num_devices: int) -> Iterator[tuple[list[int], tuple[int, int]]]:
    """Batches as (places of their clips in `lengths`, shape); one shape for each padded length."""
    padded = [max(_power_of_two(length), MIN_PADDED) for length in lengths]
    for width in sorted(set(padded)):
        places = [place for place, each in enumerate(padded) if each == width]
        rows = round_up(min(_power_of_two(len(places)), max(BATCH_SAMPLES // width, 1)), num_devices)
        for first in range(0, len(places), rows):
            yield places[first : first + rows], (rows, width)


def _power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length()
