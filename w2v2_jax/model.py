"""wav2vec 2.0 put together: the network that fine-tuning keeps, the pretraining and CTC models around it."""

from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax.nn.initializers import glorot_uniform, zeros
from jaxtyping import Array, Bool, Float, Float32, Int

from w2v2_jax.context_network import ContextNetwork
from w2v2_jax.feature_encoder import FeatureEncoder
from w2v2_jax.frames import num_frames, num_samples, num_valid_frames, valid_mask
from w2v2_jax.layers import UNIT_UNIFORM, Dropout, LayerNorm, Linear, LinearInit, logical, scale_gradient
from w2v2_jax.quantizer import GumbelQuantizer, Quantized

HEAD_INIT = LinearInit(lambda n: glorot_uniform(), lambda n: zeros)


class Encoded(NamedTuple):
    """What the network makes of a batch of waveforms.

    `latents` is the feature encoder's output z, `features` the same layer-normed (input of the quantizer),
    `context` the context network's output c, `hidden` what went into its layers and the output of each, always in
    float32, `valid` which frames are real audio.
    """

    latents: Float[Array, "batch frame feature"]
    features: Float[Array, "batch frame feature"]
    context: Float[Array, "batch frame embed"]
    hidden: Float[Array, "state batch frame embed"]
    valid: Bool[Array, "batch frame"]


class Wav2Vec2(nn.Module):
    """Waveforms to context representations; all that fine-tuning keeps of a pretrained model.

    A clip gives the same output alone and in any padded batch: samples beyond `num_samples` are never looked at.
    `dtype` is what the networks compute in (parameters, norms, softmaxes and the sum that layers add to stay in
    float32). Dropout acts when a `dropout` key is passed, LayerDrop when a `layer_drop` key is.
    """

    feature_encoder: nn.Module = FeatureEncoder()
    context_network: nn.Module = ContextNetwork()
    embed_dim: int = 768
    input_dropout: float = 0.1
    feature_gradient_scale: float = 0.1
    dtype: str = "float32"

    def num_frames(self, num_samples: int) -> int:
        """Frames that the network gives for a clip, or a padded batch, of `num_samples` samples."""
        return num_frames(num_samples, self.feature_encoder.layers)

    def num_valid_frames(self, num_samples: Int[Array, " batch"]) -> Int[Array, " batch"]:
        """Frames of each clip that are real audio."""
        return num_valid_frames(num_samples, self.feature_encoder.layers)

    @property
    def receptive_field(self) -> int:
        """Samples that one frame sees; a shorter clip has no frame."""
        return num_samples(1, self.feature_encoder.layers)

    @nn.compact
    def __call__(
        self,
        waveform: Float[Array, "batch sample"],
        num_samples: Int[Array, " batch"],
        masked: Bool[Array, "batch frame"],
        masked_channels: Bool[Array, "batch embed"],
    ) -> Encoded:
        if self.num_frames(waveform.shape[1]) < 1:
            raise ValueError(
                f"waveforms of {waveform.shape[1]} samples are shorter than the receptive field of "
                f"{self.receptive_field} samples; pad the batch to at least that"
            )
        valid = valid_mask(self.num_valid_frames(num_samples), masked.shape[1])
        waveform = jnp.where(valid_mask(num_samples, waveform.shape[1]), waveform, 0)
        latents = self.feature_encoder(waveform, num_samples, jnp.dtype(self.dtype))
        latents = scale_gradient(latents, self.feature_gradient_scale)
        features = LayerNorm("feature", name="feature_norm")(latents)
        x = Linear((self.embed_dim,), ("feature", "embed"), name="projection")(features)
        x = Dropout(self.input_dropout)(x)
        mask_embedding = self.param("mask_embedding", logical(UNIT_UNIFORM, ("embed",)), (self.embed_dim,))
        x = jnp.where(masked[:, :, None], mask_embedding[None, None, :].astype(x.dtype), x)
        x = jnp.where(masked_channels[:, None, :], 0, x)
        return Encoded(latents, features, *self.context_network(x, valid), valid)


def unmasked(encoder: Wav2Vec2, waveforms: Sequence[Float32[np.ndarray, " _"]]) -> tuple[Array, Array, Array, Array]:
    """Clips as one padded batch with nothing masked: the arguments of every model but that of pretraining."""
    num_samples = np.array([len(waveform) for waveform in waveforms])
    batch = np.zeros((len(num_samples), max(num_samples.max(), encoder.receptive_field)), np.float32)
    for row, waveform in zip(batch, waveforms, strict=True):
        row[: len(waveform)] = waveform
    masked = jnp.zeros((len(batch), encoder.num_frames(batch.shape[1])), bool)
    no_channel = jnp.zeros((len(batch), encoder.embed_dim), bool)
    return jnp.asarray(batch), jnp.asarray(num_samples), masked, no_channel


class EncoderModel(nn.Module):
    """The network without a head: what others build theirs on."""

    encoder: Wav2Vec2

    def __call__(
        self,
        waveform: Float[Array, "batch sample"],
        num_samples: Int[Array, " batch"],
        masked: Bool[Array, "batch frame"],
        masked_channels: Bool[Array, "batch embed"],
    ) -> Encoded:
        """All that the network makes of the waveforms."""
        return self.encoder(waveform, num_samples, masked, masked_channels)


class PretrainingOutput(NamedTuple):
    """At the masked frames: `context` and `quantized` side by side in the space where they are compared."""

    context: Float[Array, "batch target dim"]
    quantized: Float[Array, "batch target dim"]
    quantizer: Quantized
    latents: Float[Array, "batch frame feature"]
    valid: Bool[Array, "batch frame"]


class PretrainingModel(nn.Module):
    """The network with what pretraining adds: quantizer and the projections to the space of the contrastive loss."""

    encoder: Wav2Vec2
    quantizer: GumbelQuantizer
    feature_dropout: float = 0.1

    @nn.compact
    def __call__(
        self,
        waveform: Float[Array, "batch sample"],
        num_samples: Int[Array, " batch"],
        masked: Bool[Array, "batch frame"],
        targets: Int[Array, "batch target"],
        noise: Float[Array, "batch target group entry"],
        temperature: Float[Array, ""] | float,
    ) -> PretrainingOutput:
        """`targets` are the positions of the masked frames; gradients reach the feature encoder through both paths."""
        whole = jnp.zeros((masked.shape[0], self.encoder.embed_dim), bool)
        encoded = self.encoder(waveform, num_samples, masked, whole)
        features = jnp.take_along_axis(encoded.features, targets[:, :, None], axis=1)
        context = jnp.take_along_axis(encoded.context, targets[:, :, None], axis=1)
        quantized = self.quantizer(Dropout(self.feature_dropout)(features), noise, temperature)
        dim = (self.quantizer.dim,)
        return PretrainingOutput(
            context=Linear(dim, ("embed", "code"), name="project_context")(context),
            quantized=Linear(dim, ("code_in", "code"), name="project_quantized")(quantized.vectors),
            quantizer=quantized,
            latents=encoded.latents,
            valid=encoded.valid,
        )


class CTCModel(nn.Module):
    """The network with a linear map to labels at every frame (section 3.3)."""

    encoder: Wav2Vec2
    num_labels: int
    output_dropout: float = 0.0

    @nn.compact
    def __call__(
        self,
        waveform: Float[Array, "batch sample"],
        num_samples: Int[Array, " batch"],
        masked: Bool[Array, "batch frame"],
        masked_channels: Bool[Array, "batch embed"],
    ) -> Float[Array, "batch frame label"]:
        encoded = self.encoder(waveform, num_samples, masked, masked_channels)
        context = Dropout(self.output_dropout)(encoded.context).astype(jnp.float32)
        return Linear((self.num_labels,), ("embed", "label"), HEAD_INIT, precision="highest", name="head")(context)
