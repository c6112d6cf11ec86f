"""Language modelling: the task that teaches a network the next word of a sentence."""

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree

from w2v2_jax.batches import TokenBatch
from w2v2_jax.data.words import UNKNOWN_ID
from w2v2_jax.frames import valid_mask
from w2v2_jax.language_model import LanguageModel
from w2v2_jax.metrics import Mean

Metrics = dict[str, Mean]


@dataclass(frozen=True)
class LanguageModelling:
    """Prediction of each word from those before it, and of the end of the sentence.

    The objective is the mean over the words and ends of the global batch of -ln P; its exponential is the perplexity
    per word. A word that the list doesn't have counts as the unknown word.
    """

    model: LanguageModel
    rows_together: ClassVar[int] = 1

    def init(self, key: Key[Array, ""]) -> PyTree:
        """Parameters with the names of their axes, in float32."""
        return self.model.init(key, jnp.zeros((1, 2), jnp.int32))["params"]

    def loss(
        self, params: PyTree, batch: TokenBatch, keys: Key[Array, " batch"], step: Int[Array, ""]
    ) -> tuple[Mean, Metrics]:
        """The objective in nats per word, and what to log of it."""
        return self.objective(self.model.apply({"params": params}, batch.tokens, rngs={"dropout": keys[0]}), batch)

    def evaluate(self, params: PyTree, batch: TokenBatch, keys: Key[Array, " batch"]) -> Metrics:
        """The same measures without dropout."""
        return self.objective(self.model.apply({"params": params}, batch.tokens), batch)[1]

    def objective(self, log_probs: Float[Array, "batch token"], batch: TokenBatch) -> tuple[Mean, Metrics]:
        """Minus the log probabilities of the words of each row, with the number of words as their weight."""
        weight = valid_mask(batch.num_tokens, batch.tokens.shape[1]).astype(jnp.float32)
        loss = Mean(-jnp.sum(log_probs * weight), weight.sum())
        unknown = jnp.sum((batch.tokens == UNKNOWN_ID) * weight)
        return loss, {"loss": loss, "unknown_words": Mean(unknown, weight.sum())}
