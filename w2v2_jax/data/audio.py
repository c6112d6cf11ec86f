"""Audio files into mono 16 kHz waveforms, checked on the way in, and waveforms to and from FLAC."""

import contextlib
import io
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
import soxr
from jaxtyping import Float32, Int16

Waveform = Float32[np.ndarray, " sample"]
Samples = Int16[np.ndarray, " sample"]
Buffer = Float32[np.ndarray, " room"] | Int16[np.ndarray, " room"]

SAMPLE_RATE = 16_000
MIN_SAMPLES = 400  # the receptive field of the feature encoder: less gives no frame at all
MIN_RMS = 1e-4  # -80 dB of full scale, about three steps of a 16-bit sample
EPSILON = 1e-5  # on the variance, as in fairseq, lest silence be divided by 0
CANCELLED = 0.01  # a mono mean this much quieter than its loudest channel has lost the speech
RATES = range(4_000, 400_001)
FORMATS = frozenset({"WAV", "WAVEX", "RF64", "W64", "FLAC", "OGG", "MP3", "AIFF", "AU", "CAF", "NIST"})
# Without a header libsndfile guesses, and takes raw samples for an MP3 of silence.
HEADERLESS = frozenset({".pcm", ".raw", ".sln", ".sln16", ".g722", ".gsm", ".ulaw", ".alaw", ".vox"})


class AudioError(ValueError):
    """Audio that cannot be trained on; the message is `kind: detail`, so that reasons can be counted by kind."""


class Phone(NamedTuple):
    """A phone spoken from sample `start` up to, not including, sample `end` of a 16 kHz waveform."""

    symbol: str
    start: int
    end: int


class Recording(NamedTuple):
    """A checked 16 kHz waveform, with the phones in it where they are known."""

    waveform: Waveform
    phones: tuple[Phone, ...] = ()


class Utterance(NamedTuple):
    """One recording of a source before it has been read.

    `read(max_seconds)` returns a `Recording` or raises `AudioError`; `id` is unique within the split; `path` is
    what a rejects report names. Text, speaker and language are empty where nobody knows them.
    """

    id: str
    path: str
    read: Callable[[float], Recording]
    text: str = ""
    speaker: str = ""
    language: str = ""


def read_audio(source: str | Path | io.BufferedIOBase, max_seconds: float = math.inf) -> Waveform:
    """The mono 16 kHz waveform of an audio file in one of `FORMATS`, in [-1, 1] unless a float file says otherwise.

    Channels are averaged and other sample rates resampled. Raises `AudioError` for everything that soundfile would
    hand over in silence: files cut short, headerless samples, NaN, silence, channels that cancel, fewer than
    `MIN_SAMPLES` or more than `max_seconds` (decided by the header, before a long file is decoded).
    """
    with open_audio(source, max_seconds) as file:
        waveform = _read_mono(file, file.frames, file.frames)
        rate = file.samplerate
    return check_waveform(resample(waveform, rate), max_seconds)


def read_blocks(
    source: str | Path | io.BufferedIOBase, max_seconds: float = math.inf, block_seconds: int = 10
) -> Iterator[Waveform]:
    """What `read_audio` gives, in blocks of about `block_seconds`, so that a recording of hours fits into memory.

    Errors are those of `read_audio`, raised where they are met; that all of it is silent, at the end.
    """
    is_silent = True
    with open_audio(source, max_seconds) as file:
        resampler = soxr.ResampleStream(file.samplerate, SAMPLE_RATE, 1, dtype="float32")
        for start in range(0, file.frames, block_seconds * file.samplerate):
            waveform = _read_mono(file, min(block_seconds * file.samplerate, file.frames - start), file.frames)
            is_silent &= rms(waveform) < MIN_RMS
            yield resampler.resample_chunk(waveform, last=file.tell() == file.frames)
    if is_silent:
        raise AudioError(f"silent: the RMS is below {MIN_RMS:g} of full scale")


@contextlib.contextmanager
def open_audio(source: str | Path | io.BufferedIOBase, max_seconds: float = math.inf) -> Iterator[soundfile.SoundFile]:
    """An audio file whose header is in order; what goes wrong while it is open is an `AudioError`."""
    if isinstance(source, str | Path) and Path(source).suffix.lower() in HEADERLESS:
        raise AudioError(f"headerless: {source} has no header to tell its rate and width; convert it to WAV or FLAC")
    if isinstance(source, str | Path) and not Path(source).exists():
        raise AudioError(f"missing: there is no file {source}")
    try:
        with soundfile.SoundFile(source) as file:
            _check_header(file, max_seconds)
            yield file
    except (soundfile.LibsndfileError, OSError, TypeError) as error:
        raise AudioError(f"unreadable: {error}; give one of {', '.join(sorted(FORMATS))}") from error


def _read_mono(file: soundfile.SoundFile, num_frames: int, announced: int) -> Waveform:
    """The next frames as the mean of their channels."""
    channels = file.read(num_frames, dtype="float32", always_2d=True)
    if len(channels) != num_frames:
        raise AudioError(f"cut short: the header announces {announced} frames, the file has {file.tell()}")
    _check_finite(channels)
    return _mono(channels)


def _check_header(file: soundfile.SoundFile, max_seconds: float):
    """Raises `AudioError` for what can be known before the samples are decoded."""
    if file.format not in FORMATS:
        raise AudioError(f"format: {file.format} is not one of {', '.join(sorted(FORMATS))}; convert it")
    if "(should be" in file.extra_info:
        raise AudioError("cut short: the header announces more bytes than the file has; fetch the file again")
    if file.samplerate not in RATES:
        raise AudioError(f"sample rate: {file.samplerate} Hz is outside {RATES.start}-{RATES.stop - 1} Hz")
    check_duration(file.frames / file.samplerate, max_seconds)


def _mono(channels: Float32[np.ndarray, "sample channel"]) -> Waveform:
    """The mean of the channels, unless they cancel each other."""
    mono = channels.mean(axis=1)
    loudest = max((rms(channel) for channel in channels.T), default=0.0)
    if loudest >= MIN_RMS and rms(mono) < CANCELLED * loudest:
        raise AudioError("channels cancel: their mean is silent though each is not; keep one channel of the file")
    return mono


def rms(waveform: Waveform) -> float:
    """Root mean square about the mean (a constant offset is silence); 0 for no samples."""
    return float(waveform.std(dtype=np.float64)) if waveform.size else 0.0


def resample(waveform: Waveform, rate: int) -> Float32[np.ndarray, " resampled"]:
    """`waveform` of `rate` Hz at `SAMPLE_RATE`."""
    if rate == SAMPLE_RATE:
        return waveform
    import librosa  # takes seconds to import, and most corpora are at 16 kHz already

    return librosa.resample(waveform, orig_sr=rate, target_sr=SAMPLE_RATE)


def check_duration(seconds: float, max_seconds: float):
    """Raises `AudioError` over `max_seconds`."""
    if seconds > max_seconds:
        raise AudioError(f"too long: {seconds:.1f} s is over {max_seconds:g} s; split it or raise max_seconds")


def check_waveform(waveform: Waveform, max_seconds: float = math.inf) -> Waveform:
    """`waveform` itself, or an `AudioError` if it holds NaN, is too short, too long or silent."""
    _check_finite(waveform)
    if len(waveform) < MIN_SAMPLES:
        raise AudioError(f"too short: {len(waveform)} samples at 16 kHz give no frame; {MIN_SAMPLES} are needed")
    check_duration(len(waveform) / SAMPLE_RATE, max_seconds)
    if rms(waveform) < MIN_RMS:
        raise AudioError(f"silent: the RMS of {rms(waveform):.1e} is below {MIN_RMS:g} of full scale")
    return waveform


def _check_finite(samples: Float32[np.ndarray, "..."]):
    """Raises `AudioError` if a sample is NaN or infinite."""
    if not np.isfinite(samples).all():
        raise AudioError(f"not finite: {np.count_nonzero(~np.isfinite(samples))} samples are NaN or infinite")


def encode_flac(waveform: Waveform) -> bytes:
    """16-bit mono FLAC at 16 kHz; a waveform that leaves [-1, 1] is scaled down to fit rather than clipped."""
    peak = np.abs(waveform).max(initial=0.0)
    steps = np.rint(waveform / max(peak, 1.0) * 2**15)
    buffer = io.BytesIO()
    soundfile.write(buffer, np.minimum(steps, 2**15 - 1).astype(np.int16), SAMPLE_RATE, "PCM_16", format="FLAC")
    return buffer.getvalue()


def decode_flac(data: bytes, start: int = 0, buffer: Buffer | None = None) -> Waveform | Samples:
    """The samples from sample `start` on, in [-1, 1].

    With a `buffer` they are as many as it has room for, right into it; into one of integers as they are recorded.
    """
    with soundfile.SoundFile(io.BytesIO(data)) as file:
        file.seek(start)
        return file.read(dtype="float32", out=buffer)


def decode_record(record: Mapping[str, Any], start: int = 0, buffer: Buffer | None = None) -> Waveform | Samples:
    """`decode_flac` of the audio of a prepared utterance; an `AudioError` that names it if that is damaged."""
    try:
        return decode_flac(record["audio"], start, buffer)
    except soundfile.LibsndfileError as error:
        raise AudioError(
            f"damaged: the audio of utterance {record['id']!r} can't be decoded ({error.error_string.rstrip('.')}); "
            "prepare its corpus again"
        ) from error


def normalise(waveform: Waveform) -> Waveform:
    """Zero mean and unit variance over the whole utterance: (x - mean) / sqrt(var + 1e-5), as fairseq does."""
    return (waveform - waveform.mean()) / np.sqrt(waveform.var() + np.float32(EPSILON))
