"""Beam search with a language model, over a lexicon's words or over letters: the paper's decoder, flashlight."""

import abc
import dataclasses
import functools
import itertools
import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32

from w2v2_jax.data.text import Vocabulary
from w2v2_jax.decoding.hypotheses import Hypothesis, Weights
from w2v2_jax.decoding.language_models import LanguageModel, optional
from w2v2_jax.decoding.lexicon import Lexicon

LogProbs = Float32[np.ndarray, "_ _"]
"""Natural logs of the probabilities at the true frames of one clip [frame label]; clips differ in length."""


@dataclasses.dataclass(frozen=True, eq=False)
class Search(abc.ABC):
    """Finds the words w and the path of labels p through the frames, which spells them, that are best together:

        ln P(p | frames) + lm_weight * log P(w) + word_score * len(w) + sil_weight * frames of the word end in p

    of what is never more than `beam_threshold` below the best of a frame, nor behind `beam` better ones. Each frame
    tries its `beam_size_token` likeliest labels. The paper tunes with a beam of 500 and tests with one of 1500.

    Memory grows with frames times beam: 150 MB for a minute of speech with a beam of 500. The lexicon and the model are
    loaded when first needed; only before that can an instance be pickled.
    """

    vocabulary: Vocabulary
    model: LanguageModel
    _: dataclasses.KW_ONLY
    weights: Weights = dataclasses.field(default_factory=Weights)
    beam: int = 500
    beam_threshold: float = 50.0
    beam_size_token: int = 100
    sil_weight: float = 0.0
    n_best: int = 1

    def __post_init__(self):
        check_n_best(self.n_best, self.beam)

    def decode(self, log_probs: LogProbs) -> list[Hypothesis]:
        """Up to `n_best` hypotheses of different words, the best first; one at least.

        Labels that stand for nothing written are left out, except the blank. Raises ValueError for NaN, or for
        another number of labels than the vocabulary has.
        """
        emissions = self._emissions(log_probs)
        # Flashlight reads the memory of `emissions`, which is alive until the results are there.
        results = self._decoder().decode(emissions.ctypes.data, *emissions.shape)
        different: dict[tuple[str, ...], Any] = {}
        for result in results:
            different.setdefault(self._words(result), result)
        best = itertools.islice(different.items(), self.n_best)
        return sorted((self._hypothesis(*each) for each in best), key=self.weights.score, reverse=True)

    def reweighted(self, weights: Weights) -> "Search":
        """This search with other weights, over the same lexicon and model in memory."""
        other = dataclasses.replace(self, weights=weights)
        vars(other)["loaded"] = self.loaded
        return other

    @property
    @abc.abstractmethod
    def loaded(self) -> Any:
        """What takes time to load and does not depend on the weights."""

    @abc.abstractmethod
    def _decoder(self) -> Any: ...

    @abc.abstractmethod
    def _words(self, result: Any) -> tuple[str, ...]: ...

    @abc.abstractmethod
    def _language(self, words: tuple[str, ...], result: Any) -> float: ...

    def _hypothesis(self, words: tuple[str, ...], result: Any) -> Hypothesis:
        # The first and the last of flashlight's tokens stand before and after the frames.
        silences = result.tokens[1:-1].count(self._silence)
        acoustic = result.emittingModelScore + self.sil_weight * silences
        return Hypothesis(words, acoustic, self._language(words, result))

    @property
    def _silence(self) -> int:
        """The mark that ends words; the blank in a vocabulary without one, for flashlight needs a label to wait in."""
        return self.vocabulary.ids.get(self.vocabulary.word_end, self.vocabulary.blank_id)

    def _emissions(self, log_probs: LogProbs) -> LogProbs:
        if log_probs.shape[1] != len(self.vocabulary):
            raise ValueError(
                f"{log_probs.shape[1]} labels in a frame are not the {len(self.vocabulary)} of the vocabulary; "
                f"give the vocabulary that the model was fine-tuned with"
            )
        if np.isnan(log_probs).any():
            frame = int(np.isnan(log_probs).any(axis=1).argmax())
            raise ValueError(f"the log probabilities of frame {frame} are NaN; give only true frames of a sound model")
        kept = [*self.vocabulary.ids.values(), self.vocabulary.blank_id]
        emissions = np.full_like(log_probs, -np.inf, order="C")
        emissions[:, kept] = log_probs[:, kept]
        return emissions

    @property
    def _common_options(self) -> dict[str, Any]:
        return {
            "beam_size": self.beam,
            "beam_size_token": self.beam_size_token,
            "beam_threshold": self.beam_threshold,
            "lm_weight": self.weights.lm_weight,
            "sil_score": self.sil_weight,
            "log_add": False,
            "criterion_type": optional("flashlight.lib.text.decoder").CriterionType.CTC,
        }


def check_n_best(n_best: int, beam: int) -> None:
    """Raises ValueError for more hypotheses than go on."""
    if not 1 <= n_best <= beam:
        raise ValueError(f"a beam of {beam} cannot give the {n_best} best; give 1 <= n_best <= beam")


class _Graph(NamedTuple):
    """A lexicon as flashlight searches it: a prefix tree whose leaves number `words`, and their model."""

    words: tuple[str, ...]
    trie: Any
    model: Any


@dataclasses.dataclass(frozen=True, eq=False)
class BeamSearch(Search):
    """Search for words of a lexicon: `BeamSearch(vocabulary, NGramFile("4gram.arpa"), lexicon).decode(log_probs)`.

    A path ends each word with the mark of the vocabulary, the last word too; where no path in the beam does so, the
    letters behind the last mark are dropped.
    """

    lexicon: Lexicon

    @functools.cached_property
    def loaded(self) -> _Graph:
        """The lexicon's tree and the model: seconds and hundreds of megabytes for 200,000 words."""
        decoder = optional("flashlight.lib.text.decoder")
        words = self.lexicon.words
        model = self.model.load(words)
        start = model.start(False)
        trie = decoder.Trie(len(self.vocabulary), self._silence)
        for number, word in enumerate(words):
            _, score = model.score(start, number)
            for spelling in self.lexicon.spellings[word]:
                trie.insert([self.vocabulary.ids[symbol] for symbol in spelling], number, score)
        trie.smear(decoder.SmearingMode.MAX)
        return _Graph(words, trie, model)

    def _decoder(self) -> Any:
        decoder = optional("flashlight.lib.text.decoder")
        options = decoder.LexiconDecoderOptions(
            **self._common_options, word_score=self.weights.word_score, unk_score=-math.inf
        )
        _, trie, model = self.loaded
        no_unknown_word, no_transitions, letters_have_a_model = -1, [], False
        return decoder.LexiconDecoder(
            options, trie, model, self._silence, self.vocabulary.blank_id,
            no_unknown_word, no_transitions, letters_have_a_model,
        )  # fmt: skip

    def _words(self, result: Any) -> tuple[str, ...]:
        return tuple(self.loaded.words[number] for number in result.words if number >= 0)

    def _language(self, words: tuple[str, ...], result: Any) -> float:
        # Not `result.lmScore`, which counts the likeliest end of a word that the last frame leaves unfinished.
        model = self.loaded.model
        state, total = model.start(False), 0.0
        for number in (number for number in result.words if number >= 0):
            state, score = model.score(state, number)
            total += score
        return total + model.finish(state)[1]


@dataclasses.dataclass(frozen=True, eq=False)
class LexiconFreeSearch(Search):
    """Search for any words, spelled by labels of which `model` knows the order: an n-gram model of letters and marks.

    The text for such a model has labels for words: `T H E | C A T |`. Here the log P of the objective is that of the
    labels, and word_score is 0: the search does not know words.
    """

    weights: Weights = dataclasses.field(default_factory=lambda: Weights(word_score=0.0))

    def __post_init__(self):
        super().__post_init__()
        if self.weights.word_score != 0:
            raise ValueError(f"word_score={self.weights.word_score} has no use without a lexicon; give 0")

    @functools.cached_property
    def loaded(self) -> Any:
        """The model of the labels."""
        return self.model.load(self.vocabulary.symbols)

    def _decoder(self) -> Any:
        decoder = optional("flashlight.lib.text.decoder")
        options = decoder.LexiconFreeDecoderOptions(**self._common_options)
        return decoder.LexiconFreeDecoder(options, self.loaded, self._silence, self.vocabulary.blank_id, [])

    def _words(self, result: Any) -> tuple[str, ...]:
        labels = [label for label, _ in itertools.groupby(result.tokens)]
        return tuple(self.vocabulary.decode(labels).split())

    def _language(self, words: tuple[str, ...], result: Any) -> float:
        return result.lmScore
