"""Word n-gram language models: modified Kneser-Ney estimation, scoring with back-off, perplexity.

Estimation is that of KenLM's lmplz (Heafield et al. 2013, "Scalable Modified Kneser-Ney Language Model Estimation"):
the interpolated, modified form of Chen & Goodman (1998, "An Empirical Study of Smoothing Techniques for Language
Modeling"), in memory. All probabilities are log10, as in ARPA files and as the weights of decoders are stated for.
"""

import collections
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

UNKNOWN, START, END = SPECIALS = ("<unk>", "<s>", "</s>")


class NGramError(ValueError):
    """Text from which no model can be estimated, or that has no score."""


class Grams(NamedTuple):
    """The n-grams of one order, sorted by their distinct `keys`.

    A key is `context * num_words + word`: the place that the first n-1 words have among the n-grams of the order below
    (0 for single words) and the id of the last word.
    """

    keys: Int[np.ndarray, " gram"]
    log10_probs: Float[np.ndarray, " gram"]
    log10_backoffs: Float[np.ndarray, " gram"]

    def find(
        self, contexts: Int[np.ndarray, " query"], words: Int[np.ndarray, " query"], num_words: int
    ) -> Int[np.ndarray, " query"]:
        """The place of each context continued by its word, -1 where there is none or the context is -1 already."""
        keys = contexts * num_words + words
        places = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[places] == keys, places, -1)


class NGramModel(NamedTuple):
    """A back-off model: the `ids` of its words, `SPECIALS` among them, and the n-grams of order 1, 2 and so on.

    Ids count from 0 in the order of the dictionary and are the places of the words among the 1-grams. The first n-1
    words of every n-gram are an n-gram of the order below.
    """

    ids: dict[str, int]
    orders: tuple[Grams, ...]

    def log10_probs(self, words: Sequence[str]) -> Float[np.ndarray, " word"]:
        """log10 probability of each of a sentence's words after those before it, and last that of its end.

        A word that the model does not know has the probability of `<unk>`.
        """
        return _score(self, _known_tokens(self, [words]))[1:]


class Perplexity(NamedTuple):
    """How well a model predicts a text: 10 to the mean negative log10 probability of a token, at least 1.

    Tokens are the words and the end of each sentence. `without_unknown` leaves out the words that the model does not
    know, whose probability says little; KenLM's query prints the same two figures.
    """

    with_unknown: float
    without_unknown: float
    num_tokens: int
    num_unknown: int


def perplexity(model: NGramModel, sentences: Iterable[str]) -> Perplexity:
    """Perplexity of a text given sentence by sentence, its words separated by white space."""
    tokens = _known_tokens(model, map(str.split, sentences))
    if not len(tokens):
        raise NGramError("a text without a sentence has no perplexity; give at least one line")
    predicted = tokens != model.ids[START]
    scores, unknown = _score(model, tokens)[predicted], tokens[predicted] == model.ids[UNKNOWN]
    with_unknown, without_unknown = (float(10 ** -some.mean()) for some in (scores, scores[~unknown]))
    return Perplexity(with_unknown, without_unknown, len(scores), int(unknown.sum()))


def _score(model: NGramModel, tokens: Int[np.ndarray, " token"]) -> Float[np.ndarray, " token"]:
    """log10 probability of each token of sentences one after another; what stands at a `<s>` means nothing."""
    scores, places = model.orders[0].log10_probs[tokens], tokens
    for lower, grams in itertools.pairwise(model.orders):
        contexts = _before(places, starts=tokens == model.ids[START])
        backoffs = np.where(contexts >= 0, lower.log10_backoffs[contexts], 0)
        places = grams.find(contexts, tokens, len(model.ids))
        scores = np.where(places >= 0, grams.log10_probs[places], scores + backoffs)
    return scores


def _before(places: Int[np.ndarray, " token"], starts: Bool[np.ndarray, " token"]) -> Int[np.ndarray, " token"]:
    """What stands at the token before each, -1 before the start of a sentence."""
    return np.where(starts, -1, np.roll(places, 1))


def _known_tokens(model: NGramModel, sentences: Iterable[Sequence[str]]) -> Int[np.ndarray, " token"]:
    unknown = model.ids[UNKNOWN]
    return _tokens(sentences, lambda word: model.ids.get(word, unknown), model.ids[START], model.ids[END])


def _tokens(
    sentences: Iterable[Sequence[str]], id_of: Callable[[str], int], start: int, end: int
) -> Int[np.ndarray, " token"]:
    def ids() -> Iterator[int]:
        for number, words in enumerate(sentences, 1):
            if START in words or END in words:
                raise NGramError(f"sentence {number} contains {START} or {END}, which stand around it; remove them")
            yield start
            yield from map(id_of, words)
            yield end

    return np.fromiter(ids(), np.int64)


def estimate_discounts(counts: Int[np.ndarray, "4"], order: int) -> Float[np.ndarray, "3"]:
    """What is taken off adjusted counts of 1, 2, and 3 or more: equation 26 of Chen & Goodman (1998).

    `counts` tells how many n-grams of the order have an adjusted count of 1, 2, 3 and 4. Raises NGramError where that
    gives no discounts above 0, as for little text or for text that repeats itself. (lmplz takes a discount of 0, which
    leaves nothing to unseen words.)
    """
    adjusted = np.arange(1, 4)
    if counts[:3].all():
        single = counts[0] / (counts[0] + 2 * counts[1])
        discounts = adjusted - (adjusted + 1) * single * counts[1:] / counts[:3]
        if (discounts > 0).all():
            return discounts
    raise NGramError(
        f"the {order}-grams have no Kneser-Ney discounts, {counts.tolist()} of them have the adjusted counts 1, 2, 3 "
        "and 4; give more text, drop repeated sentences, lower the order, or use the fallback discounts"
    )


def fallback_discounts(counts: Int[np.ndarray, "4"], order: int) -> Float[np.ndarray, "3"]:
    """Those of `estimate_discounts`, or 0.5, 1 and 1.5 where there are none, as `lmplz --discount_fallback` has it."""
    try:
        return estimate_discounts(counts, order)
    except NGramError:
        return np.array([0.5, 1, 1.5])


def train_ngram(
    sentences: Iterable[str],
    order: int = 4,
    prune: Sequence[int] = (0,),
    discounts: Callable[[Int[np.ndarray, "4"], int], Float[np.ndarray, "3"]] = estimate_discounts,
) -> NGramModel:
    """The model of modified Kneser-Ney smoothing for a text given sentence by sentence; a blank one is empty.

    Words are separated by white space. N-grams of order n that occur at most `prune[n - 1]` times are left out, the
    last threshold holding for the orders above as well; as with `lmplz --prune`, thresholds never fall. Words are not
    left out: their threshold is 0. `<unk>` has its share of the uniform distribution over all words and `</s>`, with
    which 1-grams are interpolated. All is held in memory, some 100 bytes a distinct n-gram; for texts of more than
    50 million words rather use lmplz.

    Probabilities and back-offs are those of lmplz, but for one slip of it: into the statistics behind the discounts of
    an order it takes the n-gram that it sorts last by its count as it is, not adjusted.

    Raises NGramError for other thresholds, a text without sentences or with a word of `SPECIALS`, an order of which no
    n-gram is left, and where `discounts` does.
    """
    if order < 1:
        raise NGramError(f"order {order}: the longest n-grams of a model have 1 word or more")
    if not 1 <= len(prune) <= order or prune[0] != 0 or list(prune) != sorted(prune):
        raise NGramError(
            f"order {order} with prune {tuple(prune)}: a model needs 1 to {order} thresholds, 0 first and never falling"
        )
    ids, tokens = _number(sentences)
    counted = _count(tokens, len(ids), order)
    kept = [np.ones(len(ids), bool)]
    for n, grams in enumerate(counted[1:], 2):
        threshold = prune[min(n, len(prune)) - 1]
        kept.append(grams.counts > threshold)
        if not kept[-1].any():
            raise NGramError(f"no {n}-gram comes more than {threshold} times; lower the order or prune less")
    # As far as nothing is known, whatever may come next is equally likely: every word but <s>.
    probs, backoffs = [np.array([1 / (len(ids) - 1)])], []
    for n, adjusted in enumerate(_adjusted_counts(counted)):
        amounts = discounts(np.bincount(np.minimum(adjusted, 5), minlength=6)[1:5], n + 1)
        likely, left = _interpolate(counted[n], adjusted, kept[n], amounts, probs[n])
        probs.append(likely)
        backoffs.append(left)
    probs[1][ids[START]] = 1
    backoffs.append(np.ones(len(probs[-1])))
    orders = _pack(zip(counted, kept, probs[1:], backoffs[1:], strict=True), len(ids))
    return NGramModel(ids, tuple(orders))


class _Counted(NamedTuple):
    """The distinct n-grams of one order in a text, sorted by context and word.

    `contexts` and `suffixes` are the places of their first and last n-1 words among the n-grams of the order below.
    """

    contexts: Int[np.ndarray, " gram"]
    suffixes: Int[np.ndarray, " gram"]
    words: Int[np.ndarray, " gram"]
    from_start: Bool[np.ndarray, " gram"]
    counts: Int[np.ndarray, " gram"]


def _number(sentences: Iterable[str]) -> tuple[dict[str, int], Int[np.ndarray, " token"]]:
    """Ids of the words in the order in which they first come, after those of `SPECIALS`, and the text as ids."""
    ids = collections.defaultdict(itertools.count().__next__)
    unknown, start, end = (ids[word] for word in SPECIALS)
    tokens = _tokens(map(str.split, sentences), ids.__getitem__, start, end)
    if not len(tokens) or (tokens == unknown).any():
        raise NGramError(f"a text needs a sentence, and no word {UNKNOWN}, which stands for those that it lacks")
    return dict(ids), tokens


def _count(tokens: Int[np.ndarray, " token"], num_words: int, order: int) -> list[_Counted]:
    """The n-grams of every order up to `order`, none of them reaching over the start of a sentence."""
    words, empty = np.arange(num_words), np.zeros(num_words, np.int64)
    from_start, starts = words == SPECIALS.index(START), tokens == SPECIALS.index(START)
    counts = np.bincount(tokens[~starts], minlength=num_words)
    counted, places = [_Counted(empty, empty, words, from_start, counts)], tokens
    for _ in range(order - 1):
        contexts = _before(places, starts)
        whole = contexts >= 0
        keys, numbers, counts = np.unique(
            contexts[whole] * num_words + tokens[whole], return_inverse=True, return_counts=True
        )
        contexts, words = np.divmod(keys, num_words)
        suffixes = np.empty_like(keys)
        suffixes[numbers] = places[whole]
        counted.append(_Counted(contexts, suffixes, words, counted[-1].from_start[contexts], counts))
        places = np.full_like(tokens, -1)
        places[whole] = numbers
    return counted


def _adjusted_counts(counted: Sequence[_Counted]) -> Iterator[Int[np.ndarray, " gram"]]:
    """How many different words come before each n-gram; its count where none can, and in the highest order."""
    for grams, longer in itertools.pairwise(counted):
        extensions = np.bincount(longer.suffixes, minlength=len(grams.counts))
        yield np.where(grams.from_start, grams.counts, extensions)
    yield counted[-1].counts


def _interpolate(
    grams: _Counted,
    adjusted: Int[np.ndarray, " gram"],
    kept: Bool[np.ndarray, " gram"],
    discounts: Float[np.ndarray, "3"],
    lower_probs: Float[np.ndarray, " lower"],
) -> tuple[Float[np.ndarray, " gram"], Float[np.ndarray, " lower"]]:
    """Probabilities of the n-grams, and the share that each context leaves to the order below.

    That is what the discounts take off, and all that the n-grams had which are not `kept`.
    """
    discount = np.concatenate([[0], discounts])[np.minimum(adjusted, 3)]
    totals = np.bincount(grams.contexts, adjusted, minlength=len(lower_probs))
    withheld = np.bincount(grams.contexts, np.where(kept, discount, adjusted), minlength=len(lower_probs))
    left = np.divide(withheld, totals, out=np.ones_like(totals), where=totals > 0)
    own = (adjusted - discount) / totals[grams.contexts]
    return own + left[grams.contexts] * lower_probs[grams.suffixes], left


def _pack(columns: Iterable[tuple[_Counted, np.ndarray, np.ndarray, np.ndarray]], num_words: int) -> Iterator[Grams]:
    """The `kept` n-grams, whose contexts come at least as often and so are kept as well."""
    places = np.zeros(1, np.int64)
    for grams, keep, prob, backoff in columns:
        keys = places[grams.contexts[keep]] * num_words + grams.words[keep]
        # Rounding takes a certain word beyond a probability of 1.
        yield Grams(keys, np.minimum(np.log10(prob[keep]), 0), np.log10(backoff[keep]))
        places = np.cumsum(keep) - 1
