"""A Transformer that reads a sentence word by word: the paper's second language model (section 4.4)."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from w2v2_jax.adaptive_softmax import AdaptiveWords
from w2v2_jax.context_network import ATTENDED, ContextNetwork, FeedForward
from w2v2_jax.data.words import END_ID
from w2v2_jax.layers import BERT_INIT, Dropout, Identity, LayerNorm, Linear
from w2v2_jax.sharding import place

Words = Int[Array, "batch word"]
Contexts = Float[Array, "batch word embed"]

LONGEST_WAVE = 10_000
"""Of the positions, in words and in units of 2 pi (Vaswani et al. 2017, section 3.5)."""


class SinusoidalPositions(nn.Module):
    """Sines of the place in the first half of the channels, cosines in the second, to be added to the input."""

    def __call__(self, x: Contexts) -> Contexts:
        half = x.shape[2] // 2
        rates = jnp.exp(jnp.arange(half) * (-math.log(LONGEST_WAVE) / max(half - 1, 1)))
        angles = jnp.outer(jnp.arange(x.shape[1]), rates)
        waves = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=1).astype(x.dtype)
        return jnp.broadcast_to(waves, x.shape)


class CausalAttention(nn.Module):
    """Multi-head attention of each word to itself and those before it, softmax in float32."""

    num_heads: int
    dropout: float

    @nn.compact
    def __call__(self, x: Contexts) -> Contexts:
        dim, length = x.shape[2], x.shape[1]
        if dim % self.num_heads:
            raise ValueError(f"{self.num_heads} heads can't share {dim} dimensions; make the width a multiple")
        heads = (self.num_heads, dim // self.num_heads)
        query, key, value = (
            place(Linear(heads, ("embed", "head", "head_dim"), BERT_INIT, name=name)(x), "batch", "frame", "head", None)
            for name in ("query", "key", "value")
        )
        scores = jnp.einsum("bthd,bshd->bhts", query, key, preferred_element_type=jnp.float32)
        past = jnp.tril(jnp.ones((length, length), bool))[None, None]
        weights = jax.nn.softmax(jnp.where(past, scores / math.sqrt(heads[1]), -jnp.inf), axis=-1)
        weights = Dropout(self.dropout)(weights.astype(x.dtype))
        y = checkpoint_name(jnp.einsum("bhts,bshd->bthd", weights, value), ATTENDED)
        return Linear((dim,), ("head", "head_dim", "embed"), BERT_INIT, name="out")(y)


class CausalLayer(nn.Module):
    """A pre-norm layer of which no word sees a later one; what follows a sentence in its row is never looked at."""

    num_heads: int
    ffn_dim: int
    dropout: float = 0.1
    attention_dropout: float = 0.1
    activation_dropout: float = 0.1

    @nn.compact
    def __call__(self, x: Contexts, valid: Bool[Array, "batch word"], dtype: DTypeLike = jnp.float32) -> Contexts:
        attention = CausalAttention(self.num_heads, self.attention_dropout, name="attention")
        x = x + Dropout(self.dropout)(attention(LayerNorm(name="norm")(x).astype(dtype)))
        feed_forward = FeedForward(self.ffn_dim, self.activation_dropout, nn.relu, name="feed_forward")
        return x + Dropout(self.dropout)(feed_forward(LayerNorm(name="output_norm")(x).astype(dtype)))


class LanguageModel(nn.Module):
    """The log probability of each word of a sentence, in nats, given those before it.

    A sentence is its words and the mark of its end, which also stands for what is before the first word. Dropout acts
    when a `dropout` key is passed. `dtype` is what the network computes in; parameters, norms, softmaxes and
    the sum that layers add to stay in float32.
    """

    words: AdaptiveWords
    network: ContextNetwork
    dtype: str = "float32"

    def __call__(self, words: Words) -> Float[Array, "batch word"]:
        return self.log_probs(self.contexts(words), words)

    def contexts(self, words: Words) -> Contexts:
        """What the network knows ahead of each word: of itself and later ones, nothing."""
        before = jnp.pad(words[:, :-1], ((0, 0), (1, 0)), constant_values=END_ID)
        x = self.words.embed(before, self.dtype) * math.sqrt(self.words.dim)
        return self.network(x, jnp.ones(words.shape, bool)).context

    def log_probs(self, contexts: Contexts, words: Words) -> Float[Array, "batch word"]:
        """The log probability of each word in its context."""
        return self.words.log_probs(contexts, words)


def librispeech(num_words: int = 220_000) -> LanguageModel:
    """The paper's: 20 layers of 1,280 dimensions over 220,000 words; 562,265,600 parameters.

    Bands, tied tables and dropout are those of the model that the paper took from Synnaeve et al. 2020 ("End-to-end
    ASR: from supervised to semi-supervised learning with modern architectures").
    """
    words = AdaptiveWords(num_words, dim=1280, cutoffs=(60_000, 160_000))
    return LanguageModel(words, _network(20, CausalLayer(num_heads=16, ffn_dim=6144), dropout=0.1), dtype="bfloat16")


def tiny(num_words: int = 2_000) -> LanguageModel:
    """Four narrow layers without dropout, to learn something within minutes on two CPU cores."""
    layer = CausalLayer(num_heads=4, ffn_dim=512, dropout=0.0, attention_dropout=0.0, activation_dropout=0.0)
    return LanguageModel(AdaptiveWords(num_words, dim=128), _network(4, layer, dropout=0.0))


def _network(num_layers: int, layer: nn.Module, dropout: float) -> ContextNetwork:
    return ContextNetwork(
        num_layers,
        layer,
        first_norm=Identity,
        last_norm=LayerNorm,
        position=SinusoidalPositions(),
        dropout=dropout,
        layer_drop=0.0,
    )
