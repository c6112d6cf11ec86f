"""What a trained language model finds of text: `load_language_model("runs/language")(["A SENTENCE", "ANOTHER"])`."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, PyTree

from w2v2_jax.batches import TokenBatch
from w2v2_jax.checkpoints import read_description, restore_params
from w2v2_jax.data.buckets import round_up
from w2v2_jax.data.words import END_ID, UNKNOWN_ID, WordList
from w2v2_jax.decoding.fusion import Query
from w2v2_jax.decoding.ngram import Perplexity
from w2v2_jax.description import build
from w2v2_jax.language_model import LanguageModel
from w2v2_jax.language_task import LanguageModelling
from w2v2_jax.sharding import make_mesh, put_batch, replicated

LENGTH_STEP = 16
"""Sentences are padded to a multiple of so many words, so that few shapes are compiled."""
BATCH_TOKENS = 8192
"""Most words of a batch, padding included, unless one sentence has more."""
QUERIES = 1024
"""Words that are scored together, each in a context of its own."""


class NotALanguageModelError(ValueError):
    """A checkpoint of something that knows no words, such as a recogniser."""


@dataclasses.dataclass(frozen=True, eq=False)
class SentenceScorer:
    """A language model with its parameters and the words it knows; other words are its unknown word."""

    model: LanguageModel
    params: PyTree
    words: WordList

    def __call__(self, texts: Sequence[str]) -> Float[np.ndarray, " text"]:
        """The log probability of each text in nats, the end of the sentence included."""
        return np.array([found.sum() for found in self.log_probs(texts)])

    def log_probs(self, texts: Sequence[str]) -> list[Float[np.ndarray, " _"]]:
        """The log probability in nats of each word of each text, and of its end, in float64.

        Texts of about equal length share a batch, which is cut over the devices of this process.
        """
        found: list = [None] * len(texts)
        sentences = [self.words.encode(text) for text in texts]
        for places, batch in _batches(sentences):
            log_probs = np.asarray(self._log_probs(self.params, put_batch(batch, _mesh())), np.float64)
            for row, place in enumerate(places):
                found[place] = log_probs[row, : len(sentences[place])]
        return found

    def next_word(self, queries: Sequence[Query]) -> Float[np.ndarray, " query"]:
        """The log probability in nats of each query's word, or of the end for `</s>`, after the words before it.

        In a call the network reads every history once, however many queries have it.
        """
        histories = list(dict.fromkeys(history for history, _ in queries))
        # The last place is that of the next word, whose context does not depend on what stands there.
        sentences = [self.words.encode(" ".join(history)) for history in histories]
        contexts = np.zeros((len(histories), self.model.words.dim), np.float32)
        for places, batch in _batches(sentences):
            read = np.asarray(self._last_contexts(self.params, put_batch(batch, _mesh())))
            contexts[places] = read[: len(places)]
        rows = {history: row for row, history in enumerate(histories)}
        asked = np.array([rows[history] for history, _ in queries], np.int64)
        words = np.array([self.words.ids.get(word, UNKNOWN_ID) for _, word in queries], np.int32)
        parts = [
            self._score(contexts, asked[i : i + QUERIES], words[i : i + QUERIES]) for i in range(0, len(words), QUERIES)
        ]
        return np.concatenate([np.zeros(0), *parts])

    def perplexity(self, texts: Sequence[str]) -> Perplexity:
        """Per word and end of a sentence; raises ValueError for no text."""
        if not texts:
            raise ValueError("a text without a sentence has no perplexity; give at least one line")
        scores = np.concatenate(self.log_probs(texts))
        unknown = np.concatenate([self.words.encode(text) for text in texts]) == UNKNOWN_ID
        with_unknown, without_unknown = (float(np.exp(-some.mean())) for some in (scores, scores[~unknown]))
        return Perplexity(with_unknown, without_unknown, len(scores), int(unknown.sum()))

    def _score(
        self,
        contexts: Float[np.ndarray, "history embed"],
        rows: Int[np.ndarray, " query"],
        words: Int[np.ndarray, " query"],
    ) -> Float[np.ndarray, " query"]:
        padding = (0, _power_of_two(len(rows)) - len(rows))
        rows, padded = np.pad(rows, padding), np.pad(words, padding)
        found = self._log_probs_in(self.params, contexts[rows][:, None], padded[:, None])
        return np.asarray(found, np.float64)[: len(words), 0]

    @functools.cached_property
    def _log_probs(self):
        return jax.jit(lambda params, batch: self.model.apply({"params": params}, batch.tokens))

    @functools.cached_property
    def _log_probs_in(self):
        def log_probs(params, contexts, words):
            contexts = contexts.astype(self.model.dtype)
            return self.model.apply({"params": params}, contexts, words, method="log_probs")

        return jax.jit(log_probs)

    @functools.cached_property
    def _last_contexts(self):
        def last(params, batch):
            contexts = self.model.apply({"params": params}, batch.tokens, method="contexts")
            places = jnp.maximum(batch.num_tokens - 1, 0)[:, None, None]
            return jnp.take_along_axis(contexts, places, axis=1)[:, 0].astype(jnp.float32)

        return jax.jit(last)


def load_language_model(path: str | Path, words: str | Path = "") -> SentenceScorer:
    """The language model of a run or one of its checkpoints.

    `words` is the `words.txt` of the text it was trained on, by default where that was.

    Raises:
        NotALanguageModelError: for a checkpoint of another kind, and words that aren't the model's.
        ValueError: where there is no checkpoint.
    """
    settings = read_description(path)["with"]
    task = build(settings["task"]) if "task" in settings else None
    if not isinstance(task, LanguageModelling):
        raise NotALanguageModelError(f"{path} is no checkpoint of a language model; give the folder of such a run")
    file = Path(words or build(settings["train_data"]).words_file)
    if not file.exists():
        raise NotALanguageModelError(f"the words of {path} aren't in {file}; say where their words.txt is")
    known = WordList.read(file)
    if len(known) > task.model.words.num_words:
        raise NotALanguageModelError(
            f"{file} has {len(known)} words and {path} only {task.model.words.num_words}; give the words.txt of the "
            "text that it was trained on"
        )
    everywhere = replicated(_mesh())
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere),
        nn.unbox(jax.eval_shape(task.init, jax.random.key(0))),
    )
    return SentenceScorer(task.model, restore_params(path, shapes), known)


def _batches(sentences: Sequence[Int[np.ndarray, " _"]]) -> Iterator[tuple[list[int], TokenBatch]]:
    """Batches with the places of their sentences; the rows beyond these are filler."""
    widths = [round_up(len(sentence), LENGTH_STEP) for sentence in sentences]
    for width in sorted(set(widths)):
        places = [place for place, each in enumerate(widths) if each == width]
        most = min(_power_of_two(len(places)), max(BATCH_TOKENS // width, 1))
        rows = round_up(most, jax.local_device_count())
        for first in range(0, len(places), rows):
            chosen = places[first : first + rows]
            batch = TokenBatch(np.full((rows, width), END_ID, np.int32), np.zeros(rows, np.int32))
            for row, place in enumerate(chosen):
                batch.tokens[row, : len(sentences[place])] = sentences[place]
                batch.num_tokens[row] = len(sentences[place])
            yield chosen, batch


def _power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length()


def _mesh():
    return make_mesh(jax.local_devices())
