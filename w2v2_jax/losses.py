"""Objectives as pure functions: pretraining's contrastive loss, diversity and penalty, and those of classification."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


class ContrastiveLoss(NamedTuple):
    """Per masked frame: the loss in nats, and whether the target scored above every distractor."""

    loss: Float[Array, "batch target"]
    correct: Bool[Array, "batch target"]


def contrastive_loss(
    context: Float[Array, "batch target dim"],
    quantized: Float[Array, "batch target dim"],
    codes: Int[Array, "batch target group"],
    distractors: Int[Array, "batch target distractor"],
    temperature: float,
) -> ContrastiveLoss:
    """Equation 3: cross entropy of finding the true quantized latent among the distractors by cosine similarity.

    ln(1 + K) with K distractors if all look alike, 0 if the target always stands out. `distractors` are positions on
    the target axis. One that carries the same codes as the target is left out of the sum, as in fairseq; if all do,
    the loss is 0. Every pair of the clip's masked frames is scored once and the scores are picked, so that no vector
    of a distractor is ever copied. Where the target equals every distractor's score nothing counts as correct.
    """
    similarity = jnp.einsum("btd,bsd->bts", unit(context), unit(quantized), precision="highest") / temperature
    target = jnp.diagonal(similarity, axis1=1, axis2=2)
    same = (codes[:, :, None] == codes[:, None]).all(axis=-1)
    scores = jnp.take_along_axis(jnp.where(same, -jnp.inf, similarity), distractors, axis=2)
    scores = jnp.concatenate([target[:, :, None], scores], axis=2)
    correct = (target >= scores.max(axis=2)) & (target > scores.min(axis=2))
    return ContrastiveLoss(jax.nn.logsumexp(scores, axis=2) - target, correct)


def unit(vectors: Float[Array, "*rows dim"]) -> Float[Array, "*rows dim"]:
    """Vectors scaled to length 1 in float32; the zero vector stays, with a finite gradient."""
    vectors = vectors.astype(jnp.float32)
    return vectors * jax.lax.rsqrt(jnp.maximum(jnp.sum(vectors**2, axis=-1, keepdims=True), 1e-16))


def mean_probs(
    probs: Float[Array, "clip target group entry"], weight: Float[Array, "clip target"]
) -> Float[Array, "group entry"]:
    """How often each codebook entry is expected, over the frames with weight; zeros if there are none."""
    # A sum and no product of matrices: what `probs` is computed from can then be summed on the fly.
    return jnp.sum(probs * weight[:, :, None, None], axis=(0, 1)) / jnp.maximum(weight.sum(), 1)


def perplexity(probs: Float[Array, "group entry"]) -> Float[Array, ""]:
    """Entries in effective use, summed over the groups: from the number of groups (one entry each) to all entries."""
    return jnp.exp(-jnp.sum(probs * jnp.log(probs + 1e-7), axis=-1)).sum()


def diversity_loss(probs: Float[Array, "group entry"]) -> Float[Array, ""]:
    """Share of the codebooks left unused: 0 if entries are equally likely, 1 - 1/entry if one takes all.

    `probs` are means over frames of the softmax before the Gumbel noise. This is fairseq's form by perplexity; the
    paper's equation 4 is by entropy and has other gradients.
    """
    return 1 - perplexity(probs) / probs.size


def feature_penalty(latents: Float[Array, "clip frame channel"], valid: Bool[Array, "clip frame"]) -> Float[Array, ""]:
    """Mean square of the feature encoder's output over valid frames (section 4.2's L2 penalty); 0 if there are none.

    fairseq averages over padding frames too; its recipes have none.
    """
    square = jnp.square(latents.astype(jnp.float32)).mean(axis=-1)
    return jnp.where(valid, square, 0).sum() / jnp.maximum(valid.sum(), 1)


def cross_entropy(logits: Float[Array, "*rows label"], labels: Int[Array, "*rows"]) -> Float[Array, "*rows"]:
    """Of each row in nats: -ln of the share that the softmax of its `logits` gives to its label."""
    picked = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - picked


def am_softmax_loss(
    similarities: Float[Array, "batch label"], labels: Int[Array, " batch"], scale: float = 30.0, margin: float = 0.4
) -> Float[Array, " batch"]:
    """Additive margin softmax of each clip in nats (Wang et al. 2018, "Additive Margin Softmax for Face Verification").

    `similarities` are cosines of a clip's vector with that of each class. Cross entropy of `scale` times them, once
    the true class's has been lowered by `margin`: it has to lead by that much to count as found.
    """
    margins = margin * jax.nn.one_hot(labels, similarities.shape[-1])
    return cross_entropy(scale * (similarities - margins), labels)
