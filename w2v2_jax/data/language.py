"""Text for language models: prepared once from files of one sentence a line, then read in batches.

A prepared text is a folder: `words.txt`, and for each split `tokens.bin` (the ids of all its words, each sentence
followed by the mark of its end, as little-endian int32) and `ends.npy` (where each sentence ends in it).
"""

import collections
import functools
import gzip
import logging
import shutil
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from w2v2_jax.batches import TokenBatch
from w2v2_jax.data.buckets import Bucket, Bucketing, fits
from w2v2_jax.data.corpora import CorpusError, default_data_dir
from w2v2_jax.data.iterators import BatchIterator, Host, Row, in_order, read_ahead, scheduled, this_host
from w2v2_jax.data.words import WordList

log = logging.getLogger(__name__)

TOKENS = np.dtype("<i4")


def text_dir(name: str, data_dir: str | Path) -> Path:
    """The folder of the prepared text `name`, which may not be there."""
    return Path(data_dir).expanduser() / "text" / name


def read_lines(files: Sequence[str | Path]) -> Iterator[str]:
    """The lines of text files that aren't blank, file by file; those ending in .gz are unpacked on the way.

    Raises:
        CorpusError: for a file that isn't there, isn't UTF-8, or is damaged.
    """
    for path in map(Path, files):
        try:
            with (
                gzip.open(path, "rt", encoding="utf-8")
                if path.suffix == ".gz"
                else path.open(encoding="utf-8") as lines
            ):
                yield from filter(str.strip, lines)
        except (UnicodeDecodeError, OSError, EOFError, zlib.error) as error:
            raise CorpusError(f"{path} can't be read as UTF-8 text: {error}") from error


def prepare_text(
    splits: Mapping[str, Iterable[str]], name: str, data_dir: str | Path, max_words: int, min_count: int = 1
) -> WordList:
    """Prepares the text `name`; the words are those of the split "train", as `WordList.of_counts` chooses them.

    Sentences are taken as they are, but for white space: give them in the letters of the transcripts. Those of "train"
    are gone through twice, one by one. The folder is there complete or not at all.

    Raises:
        CorpusError: where there is a text of that name, and for a split without a sentence.
        WordListError: for words that are no list.
    """
    folder = text_dir(name, data_dir)
    if folder.exists():
        raise CorpusError(f"{folder} exists; give another name, or remove it first")
    words = WordList.of_counts(
        collections.Counter(word for sentence in splits["train"] for word in sentence.split()), max_words, min_count
    )
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    for split, sentences in splits.items():
        (unfinished / split).mkdir(parents=True)
        _write_split(words, sentences, unfinished / split)
    words.write(unfinished / "words.txt")
    unfinished.rename(folder)
    return words


def _write_split(words: WordList, sentences: Iterable[str], folder: Path) -> None:
    lengths = []
    with (folder / "tokens.bin").open("wb") as tokens:
        for sentence in filter(str.strip, sentences):
            ids = words.encode(sentence).astype(TOKENS)
            tokens.write(ids.tobytes())
            lengths.append(len(ids))
    if not lengths:
        raise CorpusError(f"split '{folder.name}' has no sentence; give it some text")
    np.save(folder / "ends.npy", np.cumsum(lengths))


@dataclass(frozen=True)
class Lines:
    """The sentences of a split of a prepared text, batched by length; a token is a word or a sentence's end.

    `buckets` turns lengths into shapes, as for recordings: its samples and its labels are tokens both. `num_words` is
    how many words the model has, at least those of the text. Sentences of more than `max_tokens` are left out, and
    counted in the log. The text is never in memory as a whole.
    """

    name: str
    split: str
    num_words: int
    buckets: Bucketing
    max_tokens: int = 256
    data_dir: str | Path = field(default_factory=default_data_dir)

    def batches(self, seed: int) -> BatchIterator:
        """Endless `TokenBatch`es of this process' rows; `seed` (0 or more) decides their order.

        Every sentence comes once an epoch; what doesn't fill a batch of its bucket is carried into the next epoch.
        """
        return self.batches_on(this_host(), seed)

    def batches_on(self, host: Host, seed: int) -> BatchIterator:
        """`batches` as the process `host` gets them."""
        return BatchIterator(scheduled(self._rows, self._batch_sizes, host, seed).map(_token_batch), num_workers=0)

    def epoch(self) -> Iterator[TokenBatch]:
        """Every sentence once, bucket by bucket; the last batch of each bucket is completed with filler rows."""
        return self.epoch_on(this_host())

    def epoch_on(self, host: Host) -> Iterator[TokenBatch]:
        """`epoch` as the process `host` gets it."""
        fillers = [rows.filler() for rows in self._rows]
        return read_ahead(in_order(self._rows, self._batch_sizes, host, fillers).map(_token_batch), num_workers=0)

    def shapes(self) -> tuple[TokenBatch, ...]:
        """The global batches to expect: a shape for each bucket that holds at least one sentence."""
        return tuple(
            TokenBatch(*(jax.ShapeDtypeStruct(shape, jnp.int32) for shape in ((size, length), (size,))))
            for length, size, _ in (rows.shape for rows in self._rows)
        )

    def summary(self) -> dict[str, Any]:
        """How many sentences of which lengths there are, and the buckets."""
        lengths = np.diff(self._ends, prepend=0)
        return {
            "sentences": len(lengths),
            "tokens": int(self._ends[-1]),
            "lengths": zlib.crc32(lengths.astype(np.int64).tobytes()),
            "batches": [list(rows.shape) for rows in self._rows],
        }

    @property
    def words_file(self) -> Path:
        """Where the words are by whose numbers the text is written."""
        return text_dir(self.name, self.data_dir) / "words.txt"

    @property
    def _batch_sizes(self) -> list[int]:
        return [rows.shape.batch_size for rows in self._rows]

    @functools.cached_property
    def _folder(self) -> Path:
        """Of the split, once it is sure that the model has all its words."""
        folder = self.words_file.parent / self.split
        if not folder.exists():
            splits = ", ".join(sorted(path.parent.name for path in folder.parent.glob("*/ends.npy")))
            raise CorpusError(
                f"there is no {folder} (splits of the text '{self.name}': {splits or 'none'}); prepare the text with "
                "`w2v2 lm prepare` or give another data_dir"
            )
        if (found := len(WordList.read(self.words_file))) > self.num_words:
            raise CorpusError(
                f"the text '{self.name}' has {found} words and the model num_words={self.num_words}; raise num_words "
                f"of model and data, or prepare the text with at most {self.num_words} words"
            )
        return folder

    @functools.cached_property
    def _ends(self) -> Int[np.ndarray, " sentence"]:
        return np.load(self._folder / "ends.npy")

    @functools.cached_property
    def _rows(self) -> tuple["_BucketLines", ...]:
        lengths = np.diff(self._ends, prepend=0)
        kept = np.flatnonzero(lengths <= self.max_tokens)
        if not len(kept):
            raise ValueError(
                f"none of the {len(lengths)} sentences of '{self.name}' has up to max_tokens={self.max_tokens} tokens; "
                "raise max_tokens"
            )
        if left_out := len(lengths) - len(kept):
            log.warning("left out %d of %d sentences: over %d tokens", left_out, len(lengths), self.max_tokens)
        buckets = tuple(sorted(self.buckets(lengths[kept], lengths[kept])))
        fitting = fits(buckets, lengths[kept], lengths[kept])
        if not fitting.any(axis=1).all():
            raise ValueError(
                f"sentences of up to {lengths[kept].max()} tokens fit in none of {buckets}; add a larger one"
            )
        smallest = fitting.argmax(axis=1)
        tokens = np.memmap(self._folder / "tokens.bin", TOKENS, "r")
        return tuple(
            _BucketLines(tokens, self._ends, kept[smallest == number], shape)
            for number, shape in enumerate(buckets)
            if (smallest == number).any()
        )


@dataclass(frozen=True)
class _BucketLines:
    """The sentences of one bucket, padded to its shape when they are asked for."""

    tokens: Int[np.ndarray, " token"]
    ends: Int[np.ndarray, " sentence"]
    indices: Int[np.ndarray, " row"]
    shape: Bucket

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: int) -> Row:
        index = int(self.indices[place])
        return self._pad(self.tokens[self.ends[index - 1] if index else 0 : self.ends[index]])

    def filler(self) -> Row:
        return self._pad(self.tokens[:0])

    def _pad(self, tokens: Int[np.ndarray, " _"]) -> Row:
        row = np.zeros(self.shape.max_samples, np.int32)
        row[: len(tokens)] = tokens
        return row, np.int32(len(tokens))


def _token_batch(columns: Row) -> TokenBatch:
    return TokenBatch(*columns)
