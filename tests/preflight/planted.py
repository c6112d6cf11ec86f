"""Small corpora with nothing wrong in them, in which tests plant what is."""

import dataclasses
import functools
import io
import zlib

import numpy as np
import soundfile

from w2v2_jax.data.audio import SAMPLE_RATE, Recording, Utterance, encode_flac
from w2v2_jax.data.prepare import prepare
from w2v2_jax.preflight.corpus import Part
from w2v2_jax.preflight.scan import scan

TEXTS = {
    "train": ("ONE FOR ALL", "TWO OF US", "THREE SISTERS", "FOUR SEASONS", "FIVE EASY PIECES", "SIX FEET UNDER"),
    "dev": ("SEVEN SAMURAI", "EIGHT AND A HALF"),
    "test": ("NINE QUEENS", "TEN THINGS", "ELEVEN FRIENDS"),
}
"""No two splits have a sentence in common; every utterance of a split has a speaker of that split."""


def noise(name, num_samples=8_000):
    return np.random.default_rng(zlib.crc32(name.encode())).normal(0, 0.1, num_samples).astype(np.float32)


def record(name, text="A TEXT", speaker="somebody", waveform=None):
    waveform = noise(name) if waveform is None else waveform
    fields = {"id": name, "text": text, "speaker": speaker, "language": "en"}
    return {"audio": encode_flac(waveform), "num_samples": len(waveform), **fields}


def sound_corpus():
    """Records in memory by their splits: `train` has train0 to train5, and so on."""
    return {
        split: [record(f"{split}{i}", text, f"{split} speaker {i % 2}") for i, text in enumerate(texts)]
        for split, texts in TEXTS.items()
    }


def scanned(corpus):
    parts = [Part(split, records) for split, records in corpus.items()]
    return [each for part in parts for each in scan(part, lambda count: None)]


def wrong(checks):
    """The cases of each check that found any, but for what is told for information."""
    return {check.name: list(check.cases) for check in checks if check.verdict in ("warning", "error")}


def flac(samples, rate=SAMPLE_RATE, kind="FLAC"):
    file = io.BytesIO()
    soundfile.write(file, samples, rate, "PCM_16", format=kind)
    return file.getvalue()


@dataclasses.dataclass(frozen=True)
class Given:
    """A source of the records it is given."""

    name: str
    corpus: dict

    def splits(self):
        return {split: [_utterance(each) for each in records] for split, records in self.corpus.items()}


def _utterance(each):
    read = functools.partial(_read, each["audio"])
    return Utterance(each["id"], each["id"], read, each["text"], each["speaker"], each["language"])


def _read(data, max_seconds):
    return Recording(soundfile.read(io.BytesIO(data), dtype="float32")[0])


def prepared(corpus, data_dir, name="given"):
    prepare(Given(name, corpus), data_dir, progress=False)
