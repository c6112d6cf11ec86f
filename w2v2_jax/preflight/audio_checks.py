"""Checks of sound: that every record can be read and decodes to what it says it is, and what is odd about it."""

from collections.abc import Callable, Sequence

from w2v2_jax.data.audio import MIN_RMS, MIN_SAMPLES, SAMPLE_RATE
from w2v2_jax.preflight.checks import Check, Verdict, search
from w2v2_jax.preflight.scan import NO_SOUND, Scanned, Sound

CLIPPED = 1e-3
"""Share of samples at full scale from which a recording counts as clipped; a loud one has a few."""


def audio_checks(scanned: Sequence[Scanned]) -> list[Check]:
    """Whether the records can be read and decoded, and whether their sound is as speech should be."""
    heard = [each for each in scanned if each.sound != NO_SOUND]
    by_clipping = sorted(heard, key=lambda each: -each.sound.clipped)
    by_level = sorted(heard, key=lambda each: each.sound.rms)
    return [
        _search("unreadable", Verdict.ERROR, scanned, lambda each: each.unreadable),
        _search("index disagrees", Verdict.ERROR, scanned, lambda each: each.misindexed),
        _search("undecodable", Verdict.ERROR, scanned, lambda each: each.undecodable),
        _search("wrong length", Verdict.ERROR, heard, _other_length),
        _search("not 16 kHz mono FLAC", Verdict.ERROR, heard, lambda each: _other_format(each.sound)),
        _search("shorter than a frame", Verdict.ERROR, heard, lambda each: _no_frame(each.sound)),
        _search("silent", Verdict.ERROR, by_level, lambda each: _silence(each.sound)),
        _search("clipped", Verdict.WARNING, by_clipping, lambda each: _clipping(each.sound)),
    ]


def _search(name: str, verdict: Verdict, scanned: Sequence[Scanned], defect: Callable[[Scanned], str]) -> Check:
    return search(name, verdict, (f"{each.name}: {found}" for each in scanned if (found := defect(each))))


def _other_length(each: Scanned) -> str:
    if each.sound.num_samples == each.num_samples:
        return ""
    return f"{each.sound.num_samples} samples decode, the record says {each.num_samples}"


def _other_format(sound: Sound) -> str:
    if (sound.container, sound.rate, sound.channels) == ("FLAC", SAMPLE_RATE, 1):
        return ""
    return f"{sound.container}, {sound.rate} Hz, {sound.channels} channel{'s' * (sound.channels != 1)}"


def _no_frame(sound: Sound) -> str:
    return f"{sound.num_samples} samples, a frame takes {MIN_SAMPLES}" if sound.num_samples < MIN_SAMPLES else ""


def _silence(sound: Sound) -> str:
    return f"RMS {sound.rms:.1e} of full scale" if sound.rms < MIN_RMS else ""


def _clipping(sound: Sound) -> str:
    return f"{sound.clipped:.1%} of samples at full scale" if sound.clipped > CLIPPED else ""
