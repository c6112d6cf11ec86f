"""Shallow fusion: a beam search that asks a slow language model for each word, answered in large batches.

A search asks for one word at a time, and an accelerator answers thousands as fast as one. So a search goes on with a
guess wherever it asks something new, and what it asked is answered afterwards, for all searches at once. Then they are
run again, until none has asked anything new. The last run has had true answers alone: it is the search that asks one
word at a time.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from w2v2_jax.data.words import END
from w2v2_jax.decoding.beam import BeamSearch, LogProbs
from w2v2_jax.decoding.hypotheses import Hypothesis
from w2v2_jax.decoding.language_models import LanguageModel, optional

Query = tuple[tuple[str, ...], str]
"""The words from the start of a sentence, and one that may come next or `</s>`, its end."""

NextWord = Callable[[Sequence[Query]], Float[np.ndarray, " query"]]
"""The natural log of the probability of each query's word after those before it."""


@dataclasses.dataclass(frozen=True)
class InNats:
    """An n-gram model whose log10 probabilities become natural logs: what guesses best for a Transformer."""

    model: LanguageModel

    def load(self, words: Sequence[str]) -> Any:
        """The model; raises what that of log10 probabilities raises."""
        model = self.model.load(words)

        class Natural(optional("flashlight.lib.text.decoder").LM):
            def start(self, start_with_nothing):
                return model.start(start_with_nothing)

            def score(self, state, word):
                state, score = model.score(state, word)
                return state, score * math.log(10)

            def finish(self, state):
                state, score = model.finish(state)
                return state, score * math.log(10)

        return Natural()


def decode_fused(search: BeamSearch, log_probs: Sequence[LogProbs], next_word: NextWord) -> list[list[Hypothesis]]:
    """For each clip what `search` finds with the language model `next_word` in place of its own.

    The search's own model guesses, and gives the scores by which flashlight looks ahead within a word, so it should be
    an `InNats` one of the same words: then few runs are needed. Weights are those of `next_word`, in nats. What was
    asked is remembered for as long as this takes, some kilobytes a clip at the paper's beam of 50.
    """
    known: dict[Query, float] = {}
    found: list[list[Hypothesis]] = [[]] * len(log_probs)
    asking = list(range(len(log_probs)))
    while asking:
        new: dict[Query, None] = {}
        still = []
        for clip in asking:
            fused = _fused(search, known)
            found[clip] = _with_model(search, fused).decode(log_probs[clip])
            if fused.asked:
                still.append(clip)
                new |= fused.asked
        if still:
            known.update(zip(new, np.asarray(next_word(list(new))).tolist(), strict=True))
        asking = still
    return found


def _with_model(search: BeamSearch, model: Any) -> BeamSearch:
    other = search.reweighted(search.weights)
    vars(other)["loaded"] = search.loaded._replace(model=model)
    return other


def _fused(search: BeamSearch, known: dict[Query, float]) -> Any:
    """A model of flashlight's that answers what is `known`, guesses all else, and notes that in `asked`."""
    flashlight = optional("flashlight.lib.text.decoder")
    words, _, guess = search.loaded

    class Fused(flashlight.LM):
        def __init__(self):
            super().__init__()
            self.asked: dict[Query, None] = {}
            # Flashlight knows a state by its address, so all are kept; with each its words and the guessing state.
            self.histories: dict[Any, tuple[tuple[str, ...], Any]] = {}

        def start(self, start_with_nothing):
            state = flashlight.LMState()
            self.histories[state] = (), guess.start(start_with_nothing)
            return state

        def score(self, state, word):
            history, guessing = self.histories[state]
            guessing, guessed = guess.score(guessing, word)
            child = state.child(word)
            self.histories[child] = (*history, words[word]), guessing
            return child, self.answer((history, words[word]), guessed)

        def finish(self, state):
            history, guessing = self.histories[state]
            return state, self.answer((history, END), guess.finish(guessing)[1])

        def answer(self, query, guessed):
            if query in known:
                return known[query]
            self.asked[query] = None
            return guessed

    return Fused()
