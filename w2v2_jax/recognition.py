"""From speech to text: `load_recogniser("runs/finetune_base").transcribe_files(["a.wav", "b.flac"])`."""

import collections
import dataclasses
import functools
import math
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, PyTree

from w2v2_jax import frames
from w2v2_jax.batches import AudioBatch
from w2v2_jax.data.audio import SAMPLE_RATE, AudioError, Waveform, normalise
from w2v2_jax.data.buckets import round_up
from w2v2_jax.data.chunks import Chunk, Chunking
from w2v2_jax.data.text import Vocabulary
from w2v2_jax.decoding.greedy import Candidate, Decoded, greedy
from w2v2_jax.decoding.segments import Segment, symbol_segments, word_segments
from w2v2_jax.model import CTCModel
from w2v2_jax.pretrained import open_any, placed
from w2v2_jax.sharding import make_mesh, put_batch
from w2v2_jax.tasks import CTCFinetuning

CHUNKING = Chunking()

WINDOW = 256
WINDOW_SAMPLES = 2**25
"""As many waveforms, or samples of them, are looked at together, to batch those of about equal length."""
MIN_PADDED = 2**16
BATCH_SAMPLES = 2**22
"""Most samples of a batch, padding included, unless one clip has more: activations of BASE then take some 10 GB."""


class NotARecogniserError(ValueError):
    """A checkpoint of something that doesn't write text, such as pretraining."""


class Transcript(NamedTuple):
    """What was recognised in a recording of `seconds`: its words, the symbols (letters or phones) in them, and the
    decoder's score (of a greedy one the log probability of the best path in nats). Of a beam search `candidates`, the
    best first, which is what the words are."""

    words: tuple[Segment, ...]
    symbols: tuple[Segment, ...]
    seconds: float
    score: float
    candidates: tuple[Candidate, ...] = ()

    @property
    def text(self) -> str:
        """The words with a space between them."""
        return " ".join(word.text for word in self.words)


Emissions = Float32[np.ndarray, "frame label"]
"""Log probabilities in nats of every label at every frame."""

Decoder = Callable[[Iterable[Emissions], Vocabulary], Iterator[Decoded]]
"""What makes labels of the emissions of one recording after the other."""


@dataclasses.dataclass(frozen=True, eq=False)
class Recogniser:
    """A fine-tuned model with its parameters. With `normalise` it expects waveforms of mean 0 and variance 1."""

    task: CTCFinetuning
    params: PyTree
    normalise: bool
    decoder: Decoder = greedy

    @property
    def vocabulary(self) -> Vocabulary:
        """What the labels stand for."""
        return self.task.vocabulary

    @property
    def fingerprint(self) -> str:
        """Eight digits that other parameters hardly ever have."""
        leaves = (np.ascontiguousarray(jax.device_get(leaf)) for leaf in jax.tree.leaves(self.params))
        return f"{functools.reduce(lambda crc, leaf: zlib.crc32(leaf, crc), leaves, 0):08x}"

    @property
    def hop(self) -> int:
        """Samples from one frame to the next."""
        layers = self.task.model.encoder.feature_encoder.layers
        return frames.num_samples(2, layers) - frames.num_samples(1, layers)

    def emissions(self, waveforms: Iterable[Float32[np.ndarray, " _"]]) -> Iterator[Emissions]:
        """The emissions of each 16 kHz waveform, in their order; normalises them if need be.

        Clips of about equal length share a batch, padded to a power of two, so that few shapes are compiled however
        many lengths there are. Batches are cut over the devices of this process.

        Raises:
            AudioError: for a waveform shorter than the receptive field of a frame, naming its place.
        """
        needed = self.task.model.encoder.receptive_field
        window: list[Waveform] = []
        for number, waveform in enumerate(waveforms):
            if len(waveform) < needed:
                raise AudioError(f"too short: waveform {number} has {len(waveform)} samples; a frame needs {needed}")
            window.append(waveform)
            if len(window) == WINDOW or sum(map(len, window)) > WINDOW_SAMPLES:
                yield from self._emissions_of(window)
                window = []
        yield from self._emissions_of(window)

    def transcribe(self, waveforms: Iterable[Float32[np.ndarray, " _"]]) -> Iterator[Transcript]:
        """The transcript of each 16 kHz waveform as a whole, see `emissions`, in their order and as it comes."""
        items = ((len(waveform) / SAMPLE_RATE, waveform) for waveform in waveforms)
        for seconds, decoded in self._decoded(_past_errors(self.emissions, items)):
            yield self._transcript(decoded, seconds)

    def transcribe_files(
        self, files: Iterable[str | Path], chunking: Chunking = CHUNKING, max_seconds: float = math.inf
    ) -> Iterator[tuple[str | Path, Transcript | AudioError]]:
        """Each file with its transcript, or with what is wrong with it, in their order; see `emissions_of_files`."""
        for (file, seconds), decoded in self._decoded(self.emissions_of_files(files, chunking, max_seconds)):
            yield file, decoded if isinstance(decoded, AudioError) else self._transcript(decoded, seconds)

    def emissions_of_files(
        self, files: Iterable[str | Path], chunking: Chunking = CHUNKING, max_seconds: float = math.inf
    ) -> Iterator[tuple[tuple[str | Path, float], Emissions | AudioError]]:
        """Each file and its length in seconds, with its emissions or with what is wrong with it, in their order.

        Anything that soundfile reads will do; it is resampled to 16 kHz and its channels are averaged. Longer files
        are read, and recognised, in chunks that overlap, whose emissions are joined.
        """
        return _join(_past_errors(self.emissions, self._chunks(files, chunking, max_seconds)))

    def _chunks(self, files, chunking, max_seconds) -> Iterator[tuple[tuple[str | Path, Chunk | None], Waveform]]:
        for file in files:
            try:
                for chunk in chunking.read(file, self.hop, max_seconds):
                    yield (file, chunk), chunk.waveform
            except AudioError as error:
                yield (file, None), error

    def _decoded(self, items):
        return _past_errors(lambda emissions: self.decoder(emissions, self.vocabulary), items)

    def _emissions_of(self, waveforms: Sequence[Float32[np.ndarray, " _"]]) -> list[Emissions]:
        found: dict[int, Emissions] = {}
        for places, shape in _plan([len(waveform) for waveform in waveforms], jax.local_device_count()):
            batch = AudioBatch(np.zeros(shape, np.float32), np.zeros(shape[0], np.int32))
            for row, place in enumerate(places):
                waveform = waveforms[place]
                batch.waveform[row, : len(waveform)] = normalise(waveform) if self.normalise else waveform
                batch.num_samples[row] = len(waveform)
            log_probs = jax.device_get(self._log_probs(self.params, put_batch(batch, _mesh())))
            for row, place in enumerate(places):
                found[place] = log_probs[row, : self.task.model.encoder.num_frames(len(waveforms[place]))]
        return [found[place] for place in range(len(waveforms))]

    @functools.cached_property
    def _log_probs(self):
        return jax.jit(lambda params, batch: jax.nn.log_softmax(self.task.logits(params, batch).astype(jnp.float32)))

    def _transcript(self, decoded: Decoded, seconds: float) -> Transcript:
        words = word_segments(decoded, self.vocabulary, self.hop / SAMPLE_RATE)
        symbols = symbol_segments(decoded, self.vocabulary, self.hop / SAMPLE_RATE)
        return Transcript(words, symbols, seconds, decoded.score, decoded.candidates)


def _past_errors(process: Callable[[Iterator[Any]], Iterator[Any]], items: Iterable[tuple[Any, Any]]):
    """Values replaced by what `process` makes of them, one by one and in order; errors among them stay as they are."""
    waiting: collections.deque[tuple[Any, Any]] = collections.deque()

    def values():
        for tag, value in items:
            waiting.append((tag, value))
            if not isinstance(value, AudioError):
                yield value

    for result in process(values()):
        while isinstance(waiting[0][1], AudioError):
            yield waiting.popleft()
        yield waiting.popleft()[0], result
    yield from waiting


def _join(items):
    """The emissions of chunks joined to those of files, which last so many seconds."""
    parts: list[Emissions] = []
    for (file, chunk), found in items:
        if isinstance(found, AudioError):
            yield (file, 0.0), found
            parts = []
            continue
        parts.append(found[chunk.first : chunk.stop])
        if chunk.stop is None:
            yield (file, (chunk.start + len(chunk.waveform)) / SAMPLE_RATE), np.concatenate(parts)
            parts = []


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
