"""What a beam search finds, and the weights by which it ranks that."""

from typing import NamedTuple


class Hypothesis(NamedTuple):
    """A transcript and its two log probabilities.

    `acoustic` is the natural log of what the frames give it. `language` is its log probability by the language model,
    the end of the sentence included, in the unit of that model: log10 for n-grams, as KenLM has it and the paper's
    weights expect, nats for a Transformer, 0 without a model.
    """

    words: tuple[str, ...]
    acoustic: float
    language: float

    @property
    def text(self) -> str:
        """The words with a space between them."""
        return " ".join(self.words)


class Weights(NamedTuple):
    """How much a language model counts beside the frames, and what each word adds; below 0 favours fewer words.

    The defaults are those by which the paper selects fine-tuned models, with a 4-gram model.
    """

    lm_weight: float = 2.0
    word_score: float = -1.0

    def score(self, hypothesis: Hypothesis) -> float:
        """What a search maximises, in nats."""
        language = self.lm_weight * hypothesis.language
        return hypothesis.acoustic + language + self.word_score * len(hypothesis.words)
