"""A small language and a search through all its paths, to hold beam searches to."""

import base64
import itertools
import math
import zlib

import numpy as np

from w2v2_jax.data.text import Vocabulary
from w2v2_jax.decoding.hypotheses import Hypothesis

# The blank has neither the first nor the last id, and no frame may emit <s>.
LABELS = Vocabulary(("|", "A", "<s>", "<pad>", "B"), specials=("<s>", "<pad>"), blank="<pad>")

ARPA = r"""\data\
ngram 1=6
ngram 2=4

\1-grams:
-1.0	<unk>
-99	<s>	-0.3
-0.9	</s>
-0.7	A	-0.2
-0.5	AB	-0.4
-1.1	BB	-0.1

\2-grams:
-0.4	<s> A
-0.2	A AB
-0.6	AB AB
-0.3	AB </s>

\end\
"""
BINARY = zlib.decompress(
    base64.b85decode(
        b"c-qU&O)OBz$yLZGDJihh*U!#KO-##7%}LQq&d=3P&QD2INXswEO)OC;OD!tS%+FIW<zhg9274f}pAks>2Lg}?BUFY7Odhajf{KAK8&r-3$pls"
        b"?T~MdE*RrjYfxV&2{}Pv|`Ojl-*^Ymo<;9ir{bOzMgY3NEhncmLraeKjdq0Rk@Q)puHFM@Z7|+<)c>mcmKKqcY0`kx7gSjs)Ee))n8OlF<rU"
        b"xXy7ujv-Zbb%}X=&e9&YXGD9H{ZWiLr4limXj(UbY>BO|cz=BZH$8gN;6r<>bTw00!PsBL"
    )
)
"""The same model as KenLM's `build_binary trie` writes it."""
UNIGRAMS = {"</s>": -0.9, "A": -0.7, "AB": -0.5, "BB": -1.1, "<unk>": -1.0}
BIGRAMS = {("<s>", "A"): -0.4, ("A", "AB"): -0.2, ("AB", "AB"): -0.6, ("AB", "</s>"): -0.3}
BACKOFFS = {"<s>": -0.3, "A": -0.2, "AB": -0.4, "BB": -0.1}


def log10_prob(words):
    """Of a sentence by `ARPA`, its end included."""
    history, total = "<s>", 0.0
    for word in (*words, "</s>"):
        unigram = BACKOFFS.get(history, 0.0) + UNIGRAMS.get(word, UNIGRAMS["<unk>"])
        total += BIGRAMS.get((history, word), unigram)
        history = word if word in UNIGRAMS else "<unk>"
    return total


def random_log_probs(seed, num_frames=6, labels=LABELS):
    rng = np.random.default_rng(seed)
    return np.log(rng.dirichlet(np.full(len(labels), 0.7), num_frames)).astype(np.float32)


def paths(log_probs, labels=LABELS):
    """Every path of labels that may be emitted, collapsed, with its ids and its log probability."""
    emitted = [*labels.ids.values(), labels.blank_id]
    for path in itertools.product(emitted, repeat=len(log_probs)):
        collapsed = tuple(label for label, _ in itertools.groupby(path) if label != labels.blank_id)
        yield path, collapsed, math.fsum(log_probs[range(len(path)), path])


def best_hypotheses(log_probs, lexicon, weights, sil_weight=0.0, language=log10_prob):
    """Every sequence of words of `lexicon` with its best path, best first."""
    best = {}
    for path, collapsed, acoustic in paths(log_probs):
        *words, rest = "".join(LABELS.symbols[label] for label in collapsed).split("|")
        words = tuple(word for word in words if word)
        if not rest and set(words) <= set(lexicon):
            acoustic += sil_weight * path.count(LABELS.ids["|"])
            best[words] = max(best.get(words, -math.inf), acoustic)
    found = [Hypothesis(words, acoustic, language(words)) for words, acoustic in best.items()]
    return sorted(found, key=weights.score, reverse=True)
