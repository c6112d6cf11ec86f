"""Sources in memory, of utterances that are told apart by their sound."""

import itertools
import string
from dataclasses import dataclass

import jax
import numpy as np

from w2v2_jax.data.audio import encode_flac


@dataclass(frozen=True)
class Memory:
    """A source in memory."""

    utterances: tuple
    name: str = "memory"

    def records(self):
        return self.utterances

    def __repr__(self):
        return self.name


class Letters:
    """A vocabulary of the lower-case letters: a is 1."""

    def encode(self, text):
        for symbol in text:
            if symbol not in string.ascii_lowercase:
                raise ValueError(f"{symbol!r} is not a letter")
        return np.array([1 + string.ascii_lowercase.index(symbol) for symbol in text], np.int32)


def utterance(number, num_samples, text="abc", language=""):
    """An utterance whose samples all differ from zero and tell its number: about (number + 1) / 100."""
    noise = np.random.default_rng(number).uniform(-0.004, 0.004, num_samples).astype(np.float32)
    waveform = noise + np.float32((number + 1) / 100)
    known = {"num_samples": num_samples, "text": text, "language": language, "id": f"u{number}"}
    return {"audio": encode_flac(waveform), **known}


def numbers(batch):
    """The number of the utterance in each row that isn't filler."""
    sums = batch.samples.sum(axis=1) * batch.levels.scale
    return [round(float(s / n) * 100) - 1 for s, n in zip(sums, batch.num_samples, strict=True) if n]


def take(batches, count):
    return list(itertools.islice(batches, count))


def assert_equal(left, right):
    jax.tree.map(np.testing.assert_array_equal, left, right)


def assert_joined(parts_of_hosts, batches):
    """The hosts' rows, one host after the other, are the global batches."""
    for parts, batch in zip(zip(*parts_of_hosts, strict=True), batches, strict=True):
        assert_equal(jax.tree.map(lambda *rows: np.concatenate(rows), *parts), batch)
