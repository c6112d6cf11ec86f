"""Product quantization of the latents (section 2): a code from each of G codebooks, chosen by a Gumbel softmax."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn.initializers import normal, zeros
from jaxtyping import Array, Float, Int

from w2v2_jax.layers import UNIT_UNIFORM, Linear, LinearInit, logical

LOGIT_INIT = LinearInit(lambda n: normal(1.0), lambda n: zeros)


class Quantized(NamedTuple):
    """`codes` are those chosen with the noise; `probs` are the softmax without noise or temperature."""

    vectors: Float[Array, "batch frame dim"]
    codes: Int[Array, "batch frame group"]
    probs: Float[Array, "batch frame group entry"]


class GumbelQuantizer(nn.Module):
    """Picks one entry of each codebook, hard in the forward pass and softly in the backward (equation 1).

    `dim` is the length of the quantized vector, `dim / num_groups` that of an entry. All of it is in float32: the
    noise must break ties that bfloat16 would make.
    """

    dim: int
    num_groups: int = 2
    num_entries: int = 320

    def __post_init__(self):
        super().__post_init__()
        if self.dim % self.num_groups:
            raise ValueError(f"{self.num_groups} codebooks can't share {self.dim} dimensions; make dim a multiple")

    @nn.compact
    def __call__(
        self,
        features: Float[Array, "batch frame feature"],
        noise: Float[Array, "batch frame group entry"],
        temperature: Float[Array, ""] | float,
    ) -> Quantized:
        axes = ("feature", "group", "entry")
        scored = Linear((self.num_groups, self.num_entries), axes, LOGIT_INIT, precision="highest", name="logits")
        logits = scored(features.astype(jnp.float32))
        shape = (self.num_groups, self.num_entries, self.dim // self.num_groups)
        codebook = self.param("codebook", logical(UNIT_UNIFORM, ("group", "entry", "entry_dim")), shape)
        vectors, codes = choose((logits + noise) / temperature, codebook)
        # Cheaper to compute again in the backward pass than to keep.
        probs = jax.checkpoint(jax.nn.softmax)(logits)
        return Quantized(vectors.reshape(*vectors.shape[:2], self.dim), codes, probs)


@jax.custom_vjp
def choose(
    scores: Float[Array, "batch frame group entry"], codebook: Float[Array, "group entry entry_dim"]
) -> tuple[Float[Array, "batch frame group entry_dim"], Int[Array, "batch frame group"]]:
    """The entry of each codebook that scores highest, and its code.

    Gradients are those of a mean of all entries by the softmax of their scores (straight-through, equation 1), but for
    the codebook's: the chosen entries alone get one.
    """
    codes = jnp.argmax(scores, axis=-1)
    return codebook[jnp.arange(codebook.shape[0]), codes], codes


def _choose_forward(scores, codebook):
    vectors, codes = choose(scores, codebook)
    return (vectors, codes), (scores, codes, codebook)


def _choose_backward(kept, gradients):
    scores, codes, codebook = kept
    gradient, _ = gradients
    to_choice = jnp.einsum("bfgd,gvd->bfgv", gradient, codebook, precision="highest")
    _, through_softmax = jax.vjp(jax.nn.softmax, scores)
    chosen = jax.nn.one_hot(codes, codebook.shape[1])
    return *through_softmax(to_choice), jnp.einsum("bfgv,bfgd->gvd", chosen, gradient, precision="highest")


choose.defvjp(_choose_forward, _choose_backward)
