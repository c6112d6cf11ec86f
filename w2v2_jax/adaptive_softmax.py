"""Words by the hundred thousand: embeddings and a softmax that spend less on the rare ones."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn.initializers import glorot_uniform, normal
from jaxtyping import Array, Float, Int

from w2v2_jax.layers import logical

Words = Int[Array, "batch word"]
Contexts = Float[Array, "batch word embed"]


class AdaptiveWords(nn.Module):
    """What a language model knows of each word, in its input and its softmax, which share their tables.

    Words are numbered by falling frequency and cut into bands at `cutoffs`. Those of band i have vectors of
    dim / factor^i numbers and a linear map to and from the `dim` of the network (adaptive input, Baevski & Auli 2019;
    the embeddings are tied, the maps aren't). The softmax is that of Grave et al. 2017: over the first band and one
    class for each other band, and within a band over its words. Without cutoffs it is the plain one.

    Every band is computed for every word, whichever it belongs to, since the shapes of a program are fixed; that takes
    sum over i of size_i * dim / factor^i multiplications a word. About `words_together` words of a batch, and at least
    one of each row, are looked at together, so that all logits never exist at once; the backward pass computes them
    again.
    """

    num_words: int
    dim: int
    cutoffs: tuple[int, ...] = ()
    factor: int = 4
    words_together: int = 2048

    def __post_init__(self):
        super().__post_init__()
        edges = (0, *self.cutoffs, self.num_words)
        if sorted(set(edges)) != list(edges):
            raise ValueError(
                f"cutoffs={self.cutoffs} don't cut {self.num_words} words into bands; give rising numbers between 0 "
                f"and {self.num_words}"
            )
        if self.dim % self.factor ** len(self.cutoffs):
            raise ValueError(
                f"dim={self.dim} can't be divided by factor={self.factor} for each of cutoffs={self.cutoffs}; make it "
                f"a multiple of {self.factor ** len(self.cutoffs)}"
            )

    def setup(self):
        """A table and a map for each band; from the second on also a map back and a vector for its class."""
        edges = (0, *self.cutoffs, self.num_words)
        self.bands = tuple(itertools.pairwise(edges))
        dims = [self.dim // self.factor**i for i in range(len(self.bands))]
        sizes = [last - first for first, last in self.bands]
        square, vector = glorot_uniform(), normal(self.dim**-0.5)
        self.tables = [
            self.param(f"table_{i}", logical(normal(dim**-0.5), ("label", "embed")), (size, dim))
            for i, (size, dim) in enumerate(zip(sizes, dims, strict=True))
        ]
        self.ups = [
            self.param(f"up_{i}", logical(square, ("feature", "embed")), (dim, self.dim)) for i, dim in enumerate(dims)
        ]
        rare = list(enumerate(dims))[1:]
        self.downs = [
            self.param(f"down_{i}", logical(square, ("embed", "feature")), (self.dim, dim)) for i, dim in rare
        ]
        self.classes = [self.param(f"class_{i}", logical(vector, ("embed",)), (self.dim,)) for i, _ in rare]

    def embed(self, words: Words, dtype: str) -> Contexts:
        """The vector of each word, of variance about 1 / dim at first, computed in `dtype`."""

        def of_band(band, table, up):
            first, last = band
            place = jnp.clip(words - first, 0, last - first - 1)
            inside = (words >= first) & (words < last)
            return jnp.where(inside[:, :, None], table.astype(dtype)[place] @ up.astype(dtype), 0)

        return sum(map(of_band, self.bands, self.tables, self.ups))

    def log_probs(self, contexts: Contexts, words: Words) -> Float[Array, "batch word"]:
        """The log probability of each word in nats, given the context in which it stands."""
        batch, length = words.shape
        block = min(max(self.words_together // batch, 1), length)
        padding = -length % block

        def cut(x):
            x = jnp.pad(x, ((0, 0), (0, padding), *((0, 0),) * (x.ndim - 2)))
            return x.reshape(batch, -1, block, *x.shape[2:]).swapaxes(0, 1)

        blocks = jax.lax.map(jax.checkpoint(lambda part: self._log_probs(*part)), (cut(contexts), cut(words)))
        return blocks.swapaxes(0, 1).reshape(batch, -1)[:, :length]

    def _log_probs(self, contexts: Contexts, words: Words) -> Float[Array, "batch word"]:
        (_, end), *rare = self.bands
        frequent = jnp.concatenate([self.tables[0], *(each[None] for each in self.classes)])
        logits = _products(contexts, frequent)
        # A rare word is first of all one of its band.
        chosen = words
        for band, (first, _) in enumerate(rare):
            chosen = jnp.where(words >= first, end + band, chosen)
        found = _log_softmax_at(logits, chosen)
        for (first, last), table, down in zip(rare, self.tables[1:], self.downs, strict=True):
            within = _products(contexts @ down.astype(contexts.dtype), table)
            place = jnp.clip(words - first, 0, last - first - 1)
            found += jnp.where((words >= first) & (words < last), _log_softmax_at(within, place), 0)
        return found


def _products(x: Contexts, table: Float[Array, "label embed"]) -> Float[Array, "batch word label"]:
    return jnp.einsum("bwe,le->bwl", x, table.astype(x.dtype), preferred_element_type=jnp.float32)


def _log_softmax_at(logits: Float[Array, "batch word label"], place: Words) -> Float[Array, "batch word"]:
    chosen = jnp.take_along_axis(logits, place[:, :, None], axis=2)[:, :, 0]
    return chosen - jax.nn.logsumexp(logits, axis=2)
