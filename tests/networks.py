"""Small networks with parameters of any values, as cards for conversion."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from w2v2_jax.conformer import CarriedPositionalConv, ConformerLayer, RotaryAttention
from w2v2_jax.context_network import ContextNetwork, PositionalConv, PostNormLayer, PreNormLayer
from w2v2_jax.convert.card import Card
from w2v2_jax.convert.parameters import abstract_params
from w2v2_jax.data.text import LETTERS
from w2v2_jax.feature_encoder import FeatureEncoder, LayerNormConv
from w2v2_jax.heads import FrameClassifier, SequenceClassifier, WeightedLayers, XVectorModel
from w2v2_jax.layers import Identity, LayerNorm
from w2v2_jax.masking import TIME_MASK
from w2v2_jax.model import CTCModel, EncoderModel, PretrainingModel, Wav2Vec2
from w2v2_jax.quantizer import GumbelQuantizer

CONV_LAYERS = ((8, 10, 5), (8, 3, 4), (8, 2, 4), (8, 2, 4))
"""A frame every 320 samples, as in the paper, in fewer steps."""
DIM = 32
CLASSES = ("a", "b", "c")

_POSITION = {"width": 16, "num_groups": 4}
_BEFORE = {"num_layers": 2, "first_norm": Identity, "last_norm": LayerNorm}

BASE = Wav2Vec2(
    FeatureEncoder(CONV_LAYERS),
    ContextNetwork(2, PostNormLayer(num_heads=4, ffn_dim=48), position=PositionalConv(**_POSITION)),
    DIM,
)
LAYER_NORM = FeatureEncoder(CONV_LAYERS, LayerNormConv, LayerNormConv)
LV60 = Wav2Vec2(
    LAYER_NORM,
    ContextNetwork(layer=PreNormLayer(num_heads=4, ffn_dim=48), position=PositionalConv(**_POSITION), **_BEFORE),
    DIM,
)
CONFORMER = Wav2Vec2(
    LAYER_NORM,
    ContextNetwork(
        layer=ConformerLayer(num_heads=4, ffn_dim=48, attention=RotaryAttention, width=7),
        position=CarriedPositionalConv(**_POSITION),
        **_BEFORE,
    ),
    DIM,
)
TDNN = ((8, 5, 1), (8, 3, 2), (12, 1, 1))

CARDS = {
    "base pretraining": Card(PretrainingModel(BASE, GumbelQuantizer(16, 2, 5)), normalise=False, time_mask=TIME_MASK),
    "base CTC": Card(CTCModel(BASE, len(LETTERS)), normalise=False, vocabulary=LETTERS, time_mask=TIME_MASK),
    "lv60 pretraining": Card(PretrainingModel(LV60, GumbelQuantizer(16, 2, 5)), normalise=True, time_mask=TIME_MASK),
    "lv60 encoder": Card(EncoderModel(LV60), normalise=True, time_mask=TIME_MASK),
    "conformer CTC": Card(CTCModel(CONFORMER, len(LETTERS)), normalise=True, vocabulary=LETTERS, time_mask=TIME_MASK),
    "base sequence": Card(SequenceClassifier(BASE, 3), normalise=False, classes=CLASSES, time_mask=TIME_MASK),
    "lv60 frame": Card(FrameClassifier(LV60, 3, WeightedLayers), normalise=True, classes=CLASSES, time_mask=TIME_MASK),
    "lv60 x-vector": Card(XVectorModel(LV60, 3, TDNN, 16), normalise=True, classes=CLASSES, time_mask=TIME_MASK),
}


RANGES = {"count": (7, 7), "variance": (0.5, 1.5), "scale": (0.5, 1.5), "magnitude": (0.5, 1.5)}


def params_of(model, seed=0):
    """Parameters in general position: no norm is the identity, no bias zero; variances are positive, counts whole."""
    rng = np.random.default_rng(seed)

    def drawn(path, shape):
        low, high = RANGES.get(path[-1].key, (-0.4, 0.4))
        return jnp.asarray(rng.uniform(low, high, shape.shape), jnp.float32)

    return jax.tree_util.tree_map_with_path(drawn, nn.unbox(abstract_params(model)))
