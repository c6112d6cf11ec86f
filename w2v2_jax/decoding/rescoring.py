"""A second opinion on what a beam search found: n-best lists scored by any model that reads whole sentences."""

import itertools
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from w2v2_jax.decoding.hypotheses import Hypothesis, Weights
from w2v2_jax.decoding.scoring import count_words
from w2v2_jax.decoding.tuning import LM_WEIGHTS, WORD_SCORES, Trial, Tuned

NBest = Sequence[Sequence[Hypothesis]]
"""For each clip what a search found, one hypothesis at least."""

SentenceModel = Callable[[Sequence[str]], Float[np.ndarray, " text"]]
"""The log probability of each text, the end of the sentence included."""


def rescored(n_best: NBest, model: SentenceModel) -> list[list[Hypothesis]]:
    """The same hypotheses with what `model` gives them in place of the search's language model.

    Their order stays, for it depends on the weights: see `ranked`. All texts go to the model in one call, each once.
    """
    texts = list(dict.fromkeys(hypothesis.text for found in n_best for hypothesis in found))
    scores = dict(zip(texts, np.asarray(model(texts)).tolist(), strict=True))
    return [[each._replace(language=scores[each.text]) for each in found] for found in n_best]


def ranked(n_best: NBest, weights: Weights) -> list[list[Hypothesis]]:
    """The hypotheses of each clip, the best first; equally good ones in their order."""
    return [sorted(found, key=weights.score, reverse=True) for found in n_best]


def tune_rescoring(n_best: NBest, references: Sequence[str], steps: int = 41) -> Tuned:
    """The weights that give the fewest word errors, of `steps` x `steps` over the ranges of the paper.

    Nothing is decoded or scored again, so all settings are tried. Of equally good ones the first counts, in the order
    of language model weights and then word scores.

    Raises:
        ValueError: if references and clips differ in number, or there is no word in the references.
    """
    if len(n_best) != len(references):
        raise ValueError(f"{len(references)} references cannot be those of {len(n_best)} clips; give one for each")
    num_words = sum(len(reference.split()) for reference in references)
    if num_words == 0:
        raise ValueError(f"the {len(references)} references have no words; tuning needs transcribed clips")
    axes = (np.linspace(*limits, steps).tolist() for limits in (LM_WEIGHTS, WORD_SCORES))
    settings = [Weights(*pair) for pair in itertools.product(*axes)]
    errors = np.zeros(len(settings), int)
    for found, reference in zip(n_best, references, strict=True):
        parts = np.array([(each.acoustic, each.language, len(each.words)) for each in found])
        scores = parts[:, :1] + parts[:, 1:] @ np.array(settings).T
        errors += np.array([count_words(reference, each.text).errors for each in found])[scores.argmax(axis=0)]
    trials = tuple(Trial(*each) for each in zip(settings, (errors / num_words).tolist(), strict=True))
    first = trials[int(errors.argmin())]
    return Tuned(first.weights, first.word_error_rate, trials)
