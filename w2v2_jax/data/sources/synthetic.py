"""Synthetic English speech of eSpeak NG: exact transcripts and phone times, no download, and no recording of a person.

The engine is GPL-3, so it is an optional extra and runs in a process of its own (`espeak.py`).
"""

import dataclasses
import functools
import importlib.util
import json
import pickle
import random
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soxr

from w2v2_jax.data.audio import SAMPLE_RATE, Phone, Recording, Utterance, check_waveform
from w2v2_jax.data.sources import espeak
from w2v2_jax.data.sources.sentences import Sentences, listed, share

BATCH = 200  # lines spoken by one process
ACCENTS = ("en", "en-029", "en-GB-scotland", "en-GB-x-gbclan", "en-GB-x-gbcwmd", "en-GB-x-rp", "en-US", "en-US-nyc")
# The variants that sound like people and speak the same samples in every run.
VARIANTS = listed("""
Alex Andrea Andy Annie Denis Diogo Gene Gene2 Henrique Hugo Jacky Lee Marco Mario Michael Mike Nguyen Reed adam anika
antonio aunty belinda benjamin boris caleb david ed edward f1 f4 grandma grandpa gustave ian iven iven2 john
kaukovalta linda m1 m2 m3 m4 m5 m6 m7 m8 marcelo max michel miguel mike2 norbert pablo paul pedro quincy rob robert
shelby steph steph2 steph3 travis zac
""")
SHARES = {"train": range(2, 20), "labelled": range(2, 20), "dev": range(1, 2), "test": range(0, 1)}


class Speaker(NamedTuple):
    """A voice of eSpeak NG with a pitch (0-99) and a rate in words per minute."""

    voice: str
    pitch: int
    rate: int

    def __str__(self) -> str:
        return f"{self.voice.removeprefix('gmw/')}-{self.pitch}-{self.rate}"


class Line(NamedTuple):
    """A text and who speaks it."""

    speaker: Speaker
    text: str


@dataclasses.dataclass(frozen=True)
class ESpeak:
    """Synthetic speech: `train` to pretrain on, `labelled` to fine-tune on, `dev` and `test`.

    Minutes are approximate. `labelled` has other sentences spoken by the speakers of `train`. `dev` and `test` have
    `num_held_out` speakers each, with voice variants that no other split has, and sentences that no other split has.
    `lexicon` is the share of some 350 words that sentences are made of.
    """

    name: str = "espeak"
    train_minutes: float = 90.0
    labelled_minutes: float = 10.0
    dev_minutes: float = 3.0
    test_minutes: float = 5.0
    num_speakers: int = 48
    num_held_out: int = 6
    lexicon: float = 1.0
    seed: int = 0

    def splits(self) -> dict[str, Sequence[Utterance]]:
        """The utterances of every split; a batch of them is spoken when its first one is read."""
        if importlib.util.find_spec("espeakng_loader") is None:
            raise ImportError(
                "synthetic speech needs eSpeak NG: run pip install -e '.[demo]' where you cloned w2v2_jax"
            )
        return {split: _utterances(split, lines) for split, lines in self.lines().items()}

    def lines(self) -> dict[str, list[Line]]:
        """What is spoken and by whom in every split; the same for the same seed."""
        variants = random.Random(f"{self.seed} variants").sample(VARIANTS, len(VARIANTS))
        held_out = self.num_held_out
        speakers = {
            "train": _speakers(variants[2 * held_out :], self.num_speakers, random.Random(f"{self.seed} train")),
            "dev": _speakers(variants[held_out : 2 * held_out], held_out, random.Random(f"{self.seed} dev")),
            "test": _speakers(variants[:held_out], held_out, random.Random(f"{self.seed} test")),
        }
        speakers["labelled"] = speakers["train"]
        minutes = {
            "train": self.train_minutes,
            "labelled": self.labelled_minutes,
            "dev": self.dev_minutes,
            "test": self.test_minutes,
        }
        return {
            split: list(
                _lines(
                    speakers[split],
                    SHARES[split],
                    60 * minutes[split],
                    Sentences(random.Random(f"{self.seed} {split}"), self.lexicon),
                )
            )
            for split in minutes
        }


def _speakers(variants: Sequence[str], count: int, rng: random.Random) -> list[Speaker]:
    """`count` speakers that take turns with the variants and draw accent, pitch and rate."""
    return [
        Speaker(f"gmw/{rng.choice(ACCENTS)}+{variants[i % len(variants)]}", rng.randint(30, 70), rng.randint(125, 165))
        for i in range(count)
    ]


def _lines(speakers: Sequence[Speaker], shares: range, seconds: float, sentences: Sentences) -> Iterator[Line]:
    """Distinct sentences of some shares for about so many seconds, every speaker in turn."""
    seen = set[str]()
    while seconds > 0:
        text = sentences.sentence()
        if share(text) in shares and text not in seen:
            speaker = speakers[len(seen) % len(speakers)]
            seen.add(text)
            seconds -= _seconds(Line(speaker, text))
            yield Line(speaker, text)


def _seconds(line: Line) -> float:
    """How long a line takes to speak, within some ten percent: fitted to 200 lines."""
    return (0.23 + 0.058 * len(line.text)) * 145 / line.speaker.rate


def _utterances(split: str, lines: Sequence[Line]) -> list[Utterance]:
    batches = [tuple(lines[start : start + BATCH]) for start in range(0, len(lines), BATCH)]
    return [
        Utterance(
            id=f"{split}-{number * BATCH + index:06d}",
            path=f"espeak:{line.speaker}",
            read=functools.partial(_read, batch, index),
            text=line.text.upper(),
            speaker=str(line.speaker),
            language="en",
        )
        for number, batch in enumerate(batches)
        for index, line in enumerate(batch)
    ]


def _read(batch: tuple[Line, ...], index: int, max_seconds: float) -> Recording:
    """Line `index` of a batch at 16 kHz, with its phones."""
    with _speaking:  # the threads that share a batch wait for the one that has it spoken
        samples, phones = _speak(batch)[index]
    waveform = np.frombuffer(samples, np.int16).astype(np.float32) / np.float32(2**15)
    # The call that librosa.resample makes; importing librosa for the first time compiles for half a minute.
    waveform = check_waveform(soxr.resample(waveform, espeak.SAMPLE_RATE, SAMPLE_RATE), max_seconds)
    return Recording(waveform, _phones(phones, len(waveform)))


_speaking = threading.Lock()


@functools.lru_cache(maxsize=2)
def _speak(batch: tuple[Line, ...]) -> list[tuple[bytes, list[tuple[str, int]]]]:
    """A batch as one fresh process of `espeak.py` speaks it."""
    lines = json.dumps([[*line.speaker, line.text] for line in batch])
    done = subprocess.run([sys.executable, "-P", str(Path(espeak.__file__))], input=lines.encode(), capture_output=True)
    if done.returncode != 0:
        raise RuntimeError(f"eSpeak NG stopped: {done.stderr.decode().strip().splitlines()[-1:]}")
    return pickle.loads(done.stdout)


def _phones(events: Sequence[tuple[str, int]], num_samples: int) -> tuple[Phone, ...]:
    """Phones in 16 kHz samples: each ends where the next begins; stress marks are dropped, pauses are `_`."""
    starts = [round(start * SAMPLE_RATE / espeak.SAMPLE_RATE) for _, start in events]
    ends = [*starts[1:], num_samples]
    symbols = [name.lstrip("',%=").rstrip(":") if name.startswith("_") else name.lstrip("',%=") for name, _ in events]
    return tuple(
        Phone(symbol, start, min(end, num_samples))
        for symbol, start, end in zip(symbols, starts, ends, strict=True)
        if symbol and start < min(end, num_samples)
    )
