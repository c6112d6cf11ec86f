"""The published architectures, and two narrow ones that learn on a CPU."""

from collections.abc import Callable

import flax.linen as nn
import jax

from w2v2_jax.conformer import CarriedPositionalConv, ConformerLayer, RelativeAttention, RotaryAttention
from w2v2_jax.context_network import ContextNetwork, PositionalConv, PostNormLayer, PreNormLayer
from w2v2_jax.feature_encoder import FeatureEncoder, LayerNormConv
from w2v2_jax.frames import PAPER_CONV_LAYERS
from w2v2_jax.layers import Identity, LayerNorm
from w2v2_jax.model import PretrainingModel, Wav2Vec2
from w2v2_jax.quantizer import GumbelQuantizer


def tiny() -> PretrainingModel:
    """BASE made narrow and shallow, without dropout, to learn something within minutes on two CPU cores."""
    return _narrow((32, 32, 32, 48, 64, 64, 96), num_layers=3, dim=96)


def small() -> PretrainingModel:
    """BASE made narrow and shallow, without dropout, to learn something within an hour on two CPU cores."""
    return _narrow((32, 32, 48, 64, 64, 96, 96), num_layers=4, dim=128)


def _narrow(features: tuple[int, ...], num_layers: int, dim: int) -> PretrainingModel:
    layers = tuple((n, width, stride) for n, (_, width, stride) in zip(features, PAPER_CONV_LAYERS, strict=True))
    layer = PostNormLayer(num_heads=4, ffn_dim=4 * dim, dropout=0.0, attention_dropout=0.0)
    position = PositionalConv(width=32, num_groups=8)
    context = ContextNetwork(
        num_layers,
        layer=layer,
        position=position,
        dropout=0.0,
        layer_drop=0.0,
        remat_policy=jax.checkpoint_policies.everything_saveable,
    )
    encoder = Wav2Vec2(FeatureEncoder(layers), context, dim, input_dropout=0.0, feature_gradient_scale=1.0)
    return PretrainingModel(encoder, GumbelQuantizer(dim=64, num_groups=2, num_entries=40), feature_dropout=0.0)


def base() -> PretrainingModel:
    """BASE, 95,044,608 parameters. Heads are fairseq's 12; the paper says 8, with as many parameters."""
    return PretrainingModel(Wav2Vec2(), GumbelQuantizer(dim=256))


def large() -> PretrainingModel:
    """LARGE as in the paper for LibriSpeech: group norm, post-norm layers, LayerDrop 0.2; 317,380,864 parameters."""
    context = ContextNetwork(num_layers=24, layer=PostNormLayer(num_heads=16, ffn_dim=4096), layer_drop=0.2)
    return PretrainingModel(Wav2Vec2(context_network=context, embed_dim=1024), GumbelQuantizer(dim=768))


def large_lv60() -> PretrainingModel:
    """LARGE as published for Libri-Light 60k: layer norms throughout, no dropout; 317,390,592 parameters."""
    return _layer_normed(num_layers=24, dim=1024, code_dim=768)


def robust() -> PretrainingModel:
    """LARGE for several domains (Hsu et al. 2021), built as for Libri-Light 60k."""
    return large_lv60()


def xlsr_53() -> PretrainingModel:
    """LARGE for 53 languages (Conneau et al. 2020), built as for Libri-Light 60k."""
    return large_lv60()


def xls_r_300m() -> PretrainingModel:
    """The smallest for 128 languages (Babu et al. 2021, table 2), built as for Libri-Light 60k."""
    return large_lv60()


def xls_r_1b() -> PretrainingModel:
    """For 128 languages, 48 layers of 1,280 dimensions (Babu et al. 2021, table 2)."""
    return _layer_normed(num_layers=48, dim=1280, code_dim=1024)


def xls_r_2b() -> PretrainingModel:
    """For 128 languages, 48 layers of 1,920 dimensions (Babu et al. 2021, table 2)."""
    return _layer_normed(num_layers=48, dim=1920, code_dim=1024)


def mms_300m() -> PretrainingModel:
    """For 1,406 languages (Pratap et al. 2023), built as XLS-R 300M."""
    return xls_r_300m()


def mms_1b() -> PretrainingModel:
    """For 1,406 languages (Pratap et al. 2023), built as XLS-R 1B; its recognisers add attention adapters."""
    return xls_r_1b()


def conformer_relative() -> PretrainingModel:
    """LARGE with conformer layers and relative positions, as fairseq and transformers published it."""
    return _conformer(RelativeAttention)


def conformer_rotary() -> PretrainingModel:
    """LARGE with conformer layers and rotary positions, as fairseq and transformers published it."""
    return _conformer(RotaryAttention)


def _layer_normed(num_layers: int, dim: int, code_dim: int) -> PretrainingModel:
    layer = PreNormLayer(num_heads=16, ffn_dim=4 * dim, dropout=0.0, attention_dropout=0.0)
    return _large(ContextNetwork(layer=layer, **_PRE_NORM | {"num_layers": num_layers}), dim, code_dim)


def _conformer(attention: Callable[[int, float], nn.Module]) -> PretrainingModel:
    dropouts = ("dropout", "attention_dropout", "activation_dropout", "convolution_dropout")
    layer = ConformerLayer(num_heads=16, ffn_dim=4096, attention=attention, **dict.fromkeys(dropouts, 0.0))
    network = ContextNetwork(layer=layer, position=CarriedPositionalConv(), **_PRE_NORM)
    return _large(network, dim=1024, code_dim=768)


_PRE_NORM = {"num_layers": 24, "first_norm": Identity, "last_norm": LayerNorm, "dropout": 0.0, "layer_drop": 0.0}


def _large(network: ContextNetwork, dim: int, code_dim: int) -> PretrainingModel:
    features = FeatureEncoder(first=LayerNormConv, rest=LayerNormConv)
    encoder = Wav2Vec2(features, network, embed_dim=dim, input_dropout=0.0, feature_gradient_scale=1.0)
    return PretrainingModel(encoder, GumbelQuantizer(dim=code_dim), feature_dropout=0.0)
