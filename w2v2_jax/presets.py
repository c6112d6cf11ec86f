"""The published architectures, and two narrow ones that learn on a CPU."""

import jax

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
    layer = PreNormLayer(num_heads=16, ffn_dim=4096, dropout=0.0, attention_dropout=0.0)
    context = ContextNetwork(
        num_layers=24, layer=layer, first_norm=Identity, last_norm=LayerNorm, dropout=0.0, layer_drop=0.0
    )
    encoder = Wav2Vec2(
        FeatureEncoder(first=LayerNormConv, rest=LayerNormConv),
        context,
        embed_dim=1024,
        input_dropout=0.0,
        feature_gradient_scale=1.0,
    )
    return PretrainingModel(encoder, GumbelQuantizer(dim=768), feature_dropout=0.0)
