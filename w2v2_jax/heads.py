"""Heads for whole clips and for single frames: classification, diarisation, speaker verification.

Each is called as `CTCModel` is, and reads the network through its `representation`: the last context, or a learned
mixture of all layers. All that a head computes is in float32.
"""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn.initializers import normal, zeros
from jaxtyping import Array, Bool, Float, Int

from w2v2_jax.feature_encoder import KERNEL_AXES, KERNEL_INIT
from w2v2_jax.frames import ConvLayers, num_frames, num_samples, num_valid_frames, valid_mask
from w2v2_jax.layers import Linear, logical
from w2v2_jax.losses import unit
from w2v2_jax.model import HEAD_INIT, Encoded, Wav2Vec2

Frames = Float[Array, "batch frame feature"]
Valid = Bool[Array, "batch frame"]


class LastContext(nn.Module):
    """What a head reads: the output of the context network."""

    @nn.compact
    def __call__(self, encoded: Encoded) -> Float[Array, "batch frame embed"]:
        return encoded.context.astype(jnp.float32)


class WeightedLayers(nn.Module):
    """What a head reads: a learned mean of all hidden states, of equal weights at the start.

    The `weights` are logits of a softmax over the input of the layers and the output of each, the last before any
    norm that follows the layers, as in transformers 5; before, its version 4 took the last behind that norm. Networks
    with such a norm whose heads were trained with version 4 give other numbers in both.
    """

    @nn.compact
    def __call__(self, encoded: Encoded) -> Float[Array, "batch frame embed"]:
        num_states = encoded.hidden.shape[0]
        weights = self.param("weights", logical(nn.initializers.constant(1 / num_states), (None,)), (num_states,))
        return jnp.einsum("s,sbfe->bfe", jax.nn.softmax(weights), encoded.hidden, precision="highest")


class SequenceClassifier(nn.Module):
    """The network with logits of classes for each clip, from the mean over its valid frames: keywords, intents.

    A clip without a frame gets finite logits that mean nothing.
    """

    encoder: Wav2Vec2
    num_classes: int
    projection_dim: int = 256
    representation: Callable[[], nn.Module] = LastContext

    @nn.compact
    def __call__(
        self,
        waveform: Float[Array, "batch sample"],
        num_samples: Int[Array, " batch"],
        masked: Bool[Array, "batch frame"],
        masked_channels: Bool[Array, "batch embed"],
    ) -> Float[Array, "batch label"]:
        encoded = self.encoder(waveform, num_samples, masked, masked_channels)
        x = self.representation(name="representation")(encoded)
        # The projector is affine: of the mean it gives the mean of what it gives at every frame.
        x = _linear(self.projection_dim, ("embed", "feature"), "projector")(frame_mean(x, encoded.valid))
        return _linear(self.num_classes, ("feature", "label"), "classifier")(x)


class FrameClassifier(nn.Module):
    """The network with logits of classes at every frame: who speaks when, which phoneme, speech or none."""

    encoder: Wav2Vec2
    num_classes: int
    representation: Callable[[], nn.Module] = LastContext

    @nn.compact
    def __call__(
        self,
        waveform: Float[Array, "batch sample"],
        num_samples: Int[Array, " batch"],
        masked: Bool[Array, "batch frame"],
        masked_channels: Bool[Array, "batch embed"],
    ) -> Float[Array, "batch frame label"]:
        encoded = self.encoder(waveform, num_samples, masked, masked_channels)
        x = self.representation(name="representation")(encoded)
        return _linear(self.num_classes, ("embed", "label"), "classifier")(x)


class TDNNLayer(nn.Module):
    """A dilated convolution over frames without padding, and ReLU."""

    features: int
    width: int
    dilation: int

    @nn.compact
    def __call__(self, x: Float[Array, "batch time channel"]) -> Float[Array, "batch frame feature"]:
        kernel = self.param("kernel", logical(KERNEL_INIT, KERNEL_AXES), (self.width, x.shape[-1], self.features))
        bias = self.param("bias", logical(zeros, ("channel",)), (self.features,))
        y = jax.lax.conv_general_dilated(
            x,
            kernel,
            (1,),
            "VALID",
            rhs_dilation=(self.dilation,),
            dimension_numbers=("NWC", "WIO", "NWC"),
            precision="highest",
        )
        return nn.relu(y + bias[None, None, :])


XVECTOR_TDNN = ((512, 5, 1), (512, 3, 2), (512, 3, 3), (512, 1, 1), (1500, 1, 1))
"""(features, width, dilation) of each layer, first to last (Snyder et al. 2018, table 1)."""


class XVectors(NamedTuple):
    """What tells the speaker of each clip.

    `embeddings` are what verification compares; `similarities`, from -1 to 1, are the cosines between the `logits`
    that follow from them and the vector of each speaker of the training data, for `am_softmax_loss`.
    """

    embeddings: Float[Array, "batch embedding"]
    logits: Float[Array, "batch embedding"]
    similarities: Float[Array, "batch speaker"]


class XVectorModel(nn.Module):
    """The network with a vector for each clip that tells its speaker (Snyder et al. 2018, "X-Vectors").

    The mean and deviation over time of a stack of dilated convolutions, over the frames that see valid ones alone: a
    padded clip gives what it gives by itself. One shorter than `receptive_field` has no such frame: `num_valid_frames`
    is 0, its vectors are finite and mean nothing, and it should carry no weight in a loss.
    """

    encoder: Wav2Vec2
    num_speakers: int
    tdnn: tuple[tuple[int, int, int], ...] = XVECTOR_TDNN
    embedding_dim: int = 512
    representation: Callable[[], nn.Module] = LastContext

    def __post_init__(self):
        super().__post_init__()
        if not self.tdnn:
            raise ValueError("a TDNN without layers has no output; give at least one (features, width, dilation)")

    @property
    def receptive_field(self) -> int:
        """Samples of the shortest clip that has a vector."""
        return num_samples(1, self._layers)

    def num_valid_frames(self, num_samples: Int[Array, " batch"]) -> Int[Array, " batch"]:
        """Frames behind the TDNN that each clip's statistics are taken over."""
        return num_valid_frames(num_samples, self._layers)

    @property
    def _layers(self) -> ConvLayers:
        """All convolutions from the waveform on; a dilated one reaches as far as a wider one without dilation."""
        reach = ((features, (width - 1) * dilation + 1, 1) for features, width, dilation in self.tdnn)
        return (*self.encoder.feature_encoder.layers, *reach)

    @nn.compact
    def __call__(
        self,
        waveform: Float[Array, "batch sample"],
        num_samples: Int[Array, " batch"],
        masked: Bool[Array, "batch frame"],
        masked_channels: Bool[Array, "batch embed"],
    ) -> XVectors:
        if num_frames(waveform.shape[1], self._layers) < 1:
            raise ValueError(
                f"waveforms of {waveform.shape[1]} samples are shorter than the {self.receptive_field} samples that "
                f"the TDNN sees at once; pad the batch to at least that"
            )
        encoded = self.encoder(waveform, num_samples, masked, masked_channels)
        x = self.representation(name="representation")(encoded)
        x = _linear(self.tdnn[0][0], ("embed", "feature"), "projector")(x)
        for i, layer in enumerate(self.tdnn):
            x = TDNNLayer(*layer, name=f"tdnn_{i}")(x)
        valid = valid_mask(self.num_valid_frames(num_samples), x.shape[1])
        statistics = jnp.concatenate([frame_mean(x, valid), frame_deviation(x, valid)], axis=-1)
        embeddings = _linear(self.embedding_dim, ("channel", "code_in"), "embedding")(statistics)
        logits = _linear(self.embedding_dim, ("code_in", "code"), "classifier")(embeddings)
        shape = (self.embedding_dim, self.num_speakers)
        speakers = self.param("speakers", logical(normal(1.0), ("code", "label")), shape)
        similarities = jnp.einsum("be,se->bs", unit(logits), unit(speakers.T), precision="highest")
        return XVectors(embeddings, logits, similarities)


def frame_mean(x: Frames, valid: Valid) -> Float[Array, "batch feature"]:
    """Mean over the valid frames of each clip; 0 if there are none."""
    return jnp.where(valid[:, :, None], x, 0).sum(axis=1) / jnp.maximum(valid.sum(axis=1), 1)[:, None]


def frame_deviation(x: Frames, valid: Valid) -> Float[Array, "batch feature"]:
    """Standard deviation over the valid frames of each clip, from the unbiased variance; 0 with fewer than two.

    Where it is 0, as with a ReLU that never opens, its gradient is 0 too.
    """
    centred = jnp.where(valid[:, :, None], x - frame_mean(x, valid)[:, None, :], 0)
    variance = jnp.square(centred).sum(axis=1) / jnp.maximum(valid.sum(axis=1) - 1, 1)[:, None]
    varies = variance > 0
    return jnp.where(varies, jnp.sqrt(jnp.where(varies, variance, 1)), 0)


def _linear(dim: int, axes: tuple[str, str], name: str) -> Linear:
    return Linear((dim,), axes, HEAD_INIT, precision="highest", name=name)
