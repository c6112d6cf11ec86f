"""The context network g: Z -> C of section 2: convolutional positions and a Transformer over frames."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.nn.initializers import normal, zeros
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from w2v2_jax.attention import attention
from w2v2_jax.layers import BERT_INIT, Dropout, Identity, LayerNorm, Linear, gelu, logical
from w2v2_jax.sharding import place

Context = Float[Array, "batch frame embed"]
Valid = Bool[Array, "batch frame"]

ATTENDED = "attended"
"""What attention gives, before the map of all heads: known to policies of recomputation by this name."""

_products = jax.checkpoint_policies.save_from_both_policies(
    jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    jax.checkpoint_policies.save_only_these_names(ATTENDED),
)


def keep_products(*primitive: Any, **params: Any) -> bool:
    """Of a layer, keep the products with its weights and what attention gives; recompute all else."""
    return _products(*primitive, **params)


class PositionalConv(nn.Module):
    """Relative positions by a wide grouped convolution (section 2), added to the input by the caller.

    The kernel is a direction of length 1 for each tap times that tap's magnitude: weight norm over the taps, not over
    the output channels. Of the frames that an even width yields with `width // 2` zeros at both ends, the last goes.
    """

    width: int = 128
    num_groups: int = 16

    @nn.compact
    def __call__(self, x: Context) -> Context:
        dim = x.shape[-1]
        if dim % self.num_groups:
            raise ValueError(f"{self.num_groups} groups can't share {dim} channels; make the width a multiple")
        shape = (self.width, dim // self.num_groups, dim)
        init = normal(math.sqrt(4 / (self.width * dim)))
        direction = self.param("direction", logical(init, ("width", "channel_in", "embed")), shape)
        magnitude = self.param("magnitude", logical(lambda *_: tap_norms(direction), ("width",)), (self.width,))
        bias = self.param("bias", logical(zeros, ("embed",)), (dim,))
        kernel = direction * (magnitude / tap_norms(direction))[:, None, None]
        y = grouped_conv(x, kernel.astype(x.dtype))
        return gelu(y + jnp.broadcast_to(bias.astype(y.dtype), y.shape))


def tap_norms(kernel: Float[Array, "width channel feature"]) -> Float[Array, " width"]:
    """Length of the slice of each tap of a kernel."""
    return jnp.sqrt(jnp.sum(kernel.astype(jnp.float32) ** 2, axis=(1, 2)))


def grouped_conv(
    x: Float[Array, "batch frame embed"], kernel: Float[Array, "width channel embed"]
) -> Float[Array, "batch frame embed"]:
    """A convolution in groups of channels, with zeros at the ends: y[t] = sum over w of x[t - width // 2 + w] k[w].

    Blocks of consecutive output frames are made at once, from the blocks of input frames that any of them sees: small
    groups starve a matrix unit, larger blocks feed it better and spend (block - 1) / width more multiplications. Blocks
    are convolved on a TPU; elsewhere products over all that a block sees are faster than XLA's grouped convolution.
    """
    return jax.lax.platform_dependent(
        x,
        kernel,
        tpu=functools.partial(conv_in_blocks, block=2, convolve=convolution_of_blocks),
        default=functools.partial(conv_in_blocks, block=4, convolve=product_of_windows),
    )


Seen = Float[Array, "batch seen place group channel"]
Blocks = Float[Array, "batch block place group channel"]
BlockKernel = Float[Array, "tap place channel_in group place_out channel"]


def conv_in_blocks(
    x: Float[Array, "batch frame embed"],
    kernel: Float[Array, "width channel embed"],
    block: int,
    convolve: Callable[[Seen, BlockKernel], Blocks],
) -> Float[Array, "batch frame embed"]:
    """`grouped_conv` by a convolution over blocks of frames."""
    batch, num_frames, dim = x.shape
    width, channels, _ = kernel.shape
    groups = dim // channels
    num_blocks = math.ceil(num_frames / block)
    taps = math.ceil((width + block - 1) / block)
    # Frame f of a block meets tap w at place f + w of its window.
    kernel = jnp.pad(kernel, ((block - 1, taps * block - width), (0, 0), (0, 0)))
    shifted = jnp.stack([kernel[block - 1 - f :][: taps * block] for f in range(block)], axis=2)
    shifted = shifted.reshape(taps, block, channels, block, groups, channels).swapaxes(3, 4)
    before = width // 2
    x = jnp.pad(x, ((0, 0), (before, (num_blocks + taps - 1) * block - num_frames - before), (0, 0)))
    y = convolve(x.reshape(batch, num_blocks + taps - 1, block, groups, channels), shifted)
    return y.reshape(batch, num_blocks * block, dim)[:, :num_frames]


def product_of_windows(x: Seen, kernel: BlockKernel) -> Blocks:
    """Each block from all that it sees, copied; groups come first, so that the copies are long and the products big."""
    batch, num_seen, block, groups, channels = x.shape
    taps, num_blocks = len(kernel), num_seen - len(kernel) + 1
    x = x.transpose(3, 0, 1, 2, 4).reshape(groups, batch, num_seen, -1)
    windows = jnp.concatenate([x[:, :, tap : tap + num_blocks] for tap in range(taps)], axis=3)
    kernel = kernel.transpose(3, 0, 1, 2, 4, 5).reshape(groups, windows.shape[-1], -1)
    y = jnp.einsum("gnw,gwf->gnf", windows.reshape(groups, batch * num_blocks, -1), kernel)
    return y.reshape(groups, batch, num_blocks, block, channels).transpose(1, 2, 3, 0, 4)


def convolution_of_blocks(x: Seen, kernel: BlockKernel) -> Blocks:
    """XLA's grouped convolution, a block's frames being channels."""
    batch, num_blocks, block, groups, channels = x.shape
    y = jax.lax.conv_general_dilated(
        x.swapaxes(2, 3).reshape(batch, num_blocks, -1),
        kernel.reshape(len(kernel), block * channels, -1),
        (1,),
        "VALID",
        dimension_numbers=("NWC", "WIO", "NWC"),
        feature_group_count=groups,
    )
    return y.reshape(batch, -1, groups, block, channels).swapaxes(2, 3)


class SelfAttention(nn.Module):
    """Multi-head attention over the valid frames of a clip."""

    num_heads: int
    dropout: float

    @nn.compact
    def __call__(self, x: Context, valid: Valid) -> Context:
        dim = x.shape[-1]
        if dim % self.num_heads:
            raise ValueError(f"{self.num_heads} heads can't share {dim} dimensions; make the width a multiple")
        heads = (self.num_heads, dim // self.num_heads)
        axes = ("embed", "head", "head_dim")
        query, key, value = (
            place(Linear(heads, axes, BERT_INIT, name=name)(x), "batch", "frame", "head", "head_dim")
            for name in ("query", "key", "value")
        )
        dropout = Dropout(self.dropout)
        rng, rate = (dropout.make_rng("dropout"), self.dropout) if dropout.is_active() else (jax.random.key(0), 0.0)
        y = attention(query, key, value, valid.sum(axis=1), rng, rate)
        y = checkpoint_name(y.reshape(x.shape), ATTENDED).reshape(y.shape)
        return Linear((dim,), ("head", "head_dim", "embed"), BERT_INIT, name="out")(y)


class FeedForward(nn.Module):
    """Two linear maps with an activation between."""

    dim: int
    dropout: float
    activation: Callable[[Array], Array] = gelu

    @nn.compact
    def __call__(self, x: Context) -> Context:
        hidden = self.activation(Linear((self.dim,), ("embed", "mlp"), BERT_INIT, name="up")(x))
        hidden = place(hidden, "batch", "frame", "mlp")
        return Linear(x.shape[-1:], ("mlp", "embed"), BERT_INIT, name="down")(Dropout(self.dropout)(hidden))


class _TransformerLayer(nn.Module):
    num_heads: int = 12
    ffn_dim: int = 3072
    dropout: float = 0.1
    attention_dropout: float = 0.1
    activation_dropout: float = 0.0

    def setup(self):
        """What both orders of norms are made of."""
        self.attention = SelfAttention(self.num_heads, self.attention_dropout)
        self.attention_norm = LayerNorm()
        self.feed_forward = FeedForward(self.ffn_dim, self.activation_dropout)
        self.output_norm = LayerNorm()
        self.residual_dropout = Dropout(self.dropout)


class PostNormLayer(_TransformerLayer):
    """Norms after the sums: BASE, and the paper's LARGE."""

    def __call__(self, x: Context, valid: Valid, dtype: DTypeLike = jnp.float32) -> Context:
        x = self.attention_norm(x + self.residual_dropout(self.attention(x.astype(dtype), valid)))
        return self.output_norm(x + self.residual_dropout(self.feed_forward(x.astype(dtype))))


class PreNormLayer(_TransformerLayer):
    """Norms at the head of each branch: the published LARGE LV-60k."""

    def __call__(self, x: Context, valid: Valid, dtype: DTypeLike = jnp.float32) -> Context:
        x = x + self.residual_dropout(self.attention(self.attention_norm(x).astype(dtype), valid))
        return x + self.residual_dropout(self.feed_forward(self.output_norm(x).astype(dtype)))


class AttentionAdapter(nn.Module):
    """A bottleneck of `dim` units on each frame: layer norm, a linear map down, ReLU, a linear map up.

    A pretrained network learns a language by these alone (Pratap et al. 2023, "Scaling Speech Technology to 1,000+
    Languages"). The caller adds the result to the input.
    """

    dim: int

    @nn.compact
    def __call__(self, x: Context, dtype: DTypeLike) -> Context:
        x = LayerNorm(name="norm")(x).astype(dtype)
        hidden = nn.relu(Linear((self.dim,), ("embed", "mlp"), BERT_INIT, name="down")(x))
        return Linear(x.shape[-1:], ("mlp", "embed"), BERT_INIT, name="up")(hidden)


class AdaptedPreNormLayer(PreNormLayer):
    """A pre-norm layer with an adapter behind its feed-forward branch: MMS's networks for recognition."""

    adapter_dim: int = 16

    def setup(self):
        super().setup()
        self.adapter = AttentionAdapter(self.adapter_dim)

    def __call__(self, x: Context, valid: Valid, dtype: DTypeLike = jnp.float32) -> Context:
        x = super().__call__(x, valid, dtype)
        return x + self.adapter(x, dtype)


class Contextualised(NamedTuple):
    """The representations, and the `hidden` states on the way to them: what went into the layers, and each's output,
    in float32."""

    context: Float[Array, "batch frame embed"]
    hidden: Float[Array, "state batch frame embed"]


class ContextNetwork(nn.Module):
    """Latents in, context representations out.

    `layer` is repeated `num_layers` times by a scan; while training, each repetition is left out with probability
    `layer_drop` (LayerDrop, section 4.2) for the whole batch, and its work is not done. LayerDrop follows a
    `layer_drop` key, dropout a `dropout` key; without them the network is deterministic. `first_norm` stands before
    the layers (post-norm networks), `last_norm` behind them (pre-norm). `remat_policy` says what of a layer is kept
    for the backward pass, all else is computed again. `unroll` layers are compiled as one turn of the scan: a longer
    compilation buys a faster step. The hidden states cost nothing where nobody uses them.

    Layers are called with the sum that they add to, with the valid frames, and with the `dtype` that they compute in,
    that of the latents. The sum is in float32: rounded to bfloat16 it would lose part of what each layer adds.
    """

    num_layers: int = 12
    layer: nn.Module = PostNormLayer()
    first_norm: Callable[[], nn.Module] = LayerNorm
    last_norm: Callable[[], nn.Module] = Identity
    position: nn.Module = PositionalConv()
    dropout: float = 0.1
    layer_drop: float = 0.05
    remat_policy: Callable[..., bool] = keep_products
    unroll: int = 1

    def __post_init__(self):
        super().__post_init__()
        if self.num_layers < 1:
            raise ValueError(f"num_layers={self.num_layers}: give at least 1")
        if not 0 <= self.layer_drop < 1:
            raise ValueError(f"a layer_drop of {self.layer_drop} keeps nothing; give a number from 0 to below 1")

    @nn.compact
    def __call__(self, x: Context, valid: Valid) -> Contextualised:
        x = place(jnp.where(valid[:, :, None], x, 0), "batch", "frame", None)
        dtype = x.dtype
        x = self.first_norm(name="first_norm")(x.astype(jnp.float32) + self.position(x))
        x = Dropout(self.dropout)(x)
        scanned = nn.scan(
            nn.remat(functools.partial(self._run, dtype), policy=self.remat_policy, prevent_cse=False),
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True, "layer_drop": True},
            in_axes=nn.broadcast,
            length=self.num_layers,
            unroll=self.unroll,
            metadata_params={nn.PARTITION_NAME: "layer"},
        )
        last, outputs = scanned(self.layer, x, valid)
        return Contextualised(self.last_norm(name="last_norm")(last).astype(dtype), jnp.concatenate([x[None], outputs]))

    def _run(self, dtype: DTypeLike, layer: nn.Module, x: Context, valid: Valid) -> tuple[Context, Context]:
        if self.layer_drop > 0 and layer.has_rng("layer_drop"):
            keep = jax.random.bernoulli(layer.make_rng("layer_drop"), 1 - self.layer_drop)
            x = nn.cond(keep, lambda layer, x: layer(x, valid, dtype), lambda layer, x: x, layer, x)
        else:
            x = layer(x, valid, dtype)
        x = place(x, "batch", "frame", None)
        return x, x
