import functools
import itertools
import re
from typing import NamedTuple

import jax
import pytest
from flax import linen as nn

from w2v2_jax.conformer import CarriedPositionalConv, ConformerLayer, RelativeAttention
from w2v2_jax.context_network import AdaptedPreNormLayer, ContextNetwork, PositionalConv, PostNormLayer, PreNormLayer
from w2v2_jax.convert import names
from w2v2_jax.convert.names import newer_spelling, older_spelling, with_prefix
from w2v2_jax.convert.parameters import abstract_params, places
from w2v2_jax.feature_encoder import FeatureEncoder, LayerNormConv
from w2v2_jax.heads import FrameClassifier, SequenceClassifier, WeightedLayers, XVectorModel
from w2v2_jax.layers import Identity, LayerNorm
from w2v2_jax.model import CTCModel, PretrainingModel, Wav2Vec2
from w2v2_jax.quantizer import GumbelQuantizer


def encoder(layer, blocks, position=PositionalConv, **norms):
    context = ContextNetwork(2, layer, position=position(16, 4), **norms)
    return Wav2Vec2(FeatureEncoder(((8, 10, 5), (8, 3, 2)), *blocks), context, 32)


LAYER_NORMED = {"blocks": (LayerNormConv, LayerNormConv), "first_norm": Identity, "last_norm": LayerNorm}
BASE = encoder(PostNormLayer(4, 48), ())
LV60 = encoder(PreNormLayer(4, 48), **LAYER_NORMED)
ADAPTED = encoder(AdaptedPreNormLayer(4, 48), **LAYER_NORMED)
CONFORMER = encoder(ConformerLayer(4, 48, RelativeAttention, 3), position=CarriedPositionalConv, **LAYER_NORMED)

QUANTIZER = GumbelQuantizer(16, 2, 6)
PRETRAINING = (PretrainingModel(BASE, QUANTIZER), PretrainingModel(LV60, QUANTIZER))
CTC = (CTCModel(BASE, 5), CTCModel(LV60, 5))
CLASSIFIERS = (
    SequenceClassifier(BASE, 3, 8, WeightedLayers),
    FrameClassifier(LV60, 3),
    XVectorModel(LV60, 3, ((8, 3, 1), (8, 2, 2)), 8),
)
CONFORMERS = (PretrainingModel(CONFORMER, QUANTIZER), CTCModel(CONFORMER, 5))


class Format(NamedTuple):
    """The names that a library has for its layers of one kind, and models that have such layers."""

    encoder: dict
    layer: dict
    heads: dict
    models: tuple

    @property
    def names(self):
        return with_prefix(self.encoder | self.layer, "", self.heads)


FORMATS = {
    "huggingface": Format(
        names.HUGGINGFACE_ENCODER,
        names.HUGGINGFACE_TRANSFORMER,
        names.HUGGINGFACE_HEADS,
        (*PRETRAINING, *CTC, CTCModel(ADAPTED, 5), *CLASSIFIERS),
    ),
    "fairseq": Format(names.FAIRSEQ_ENCODER, names.FAIRSEQ_TRANSFORMER, names.FAIRSEQ_HEADS, (*PRETRAINING, *CTC)),
    "torchaudio": Format(names.TORCHAUDIO_ENCODER, names.TORCHAUDIO_TRANSFORMER, names.TORCHAUDIO_HEADS, CTC),
}
CONFORMER_FORMATS = {
    "huggingface": Format(names.HUGGINGFACE_ENCODER, names.HUGGINGFACE_CONFORMER, names.HUGGINGFACE_HEADS, CONFORMERS),
    "fairseq": Format(names.FAIRSEQ_ENCODER, names.FAIRSEQ_CONFORMER, names.FAIRSEQ_HEADS, CONFORMERS),
}
ALL = [*FORMATS.values(), *CONFORMER_FORMATS.values()]


@functools.cache
def rows(model):
    """The rows that a model's parameters are in: their own, or their module's."""
    leaves = jax.tree_util.tree_leaves_with_path(nn.unbox(abstract_params(model)))
    paths = {re.sub(r"_\d+/", "_{i}/", jax.tree_util.keystr(path, simple=True, separator="/")) for path, _ in leaves}
    return paths | {path.rpartition("/")[0] for path in paths}


@pytest.mark.parametrize("name", FORMATS)
def test_every_row_of_a_table_is_of_some_architecture(name):
    assert FORMATS[name].names.keys() - set().union(*map(rows, FORMATS[name].models)) == set()


@pytest.mark.parametrize("name", CONFORMER_FORMATS)
def test_every_row_of_a_conformer_is_of_one(name):
    layer = with_prefix(CONFORMER_FORMATS[name].layer, "", {})
    assert layer.keys() - set().union(*map(rows, CONFORMERS)) == set()


def test_fairseq_has_another_name_for_a_group_norm():
    assert {f"encoder/{row}" for row in names.FAIRSEQ_GROUP_NORM} <= rows(CTC[0])


@pytest.mark.parametrize("format", ALL, ids=[*FORMATS, *(f"{name} conformer" for name in CONFORMER_FORMATS)])
def test_no_two_parameters_of_a_model_have_the_same_name(format):
    for model in format.models:
        found = [name for place in places(model, format.names).values() for name in place.names]
        assert len(set(found)) == len(found)


@pytest.mark.parametrize("format", ALL, ids=[*FORMATS, *(f"{name} conformer" for name in CONFORMER_FORMATS)])
def test_two_rows_have_the_same_name_only_where_no_two_parameters_do(format):
    """The norm before the layers or behind them; batch norm and its statistics, whose leaves differ."""
    alike = {
        frozenset(path.rpartition("/")[2] for path in (one, other))
        for (one, name), (other, same) in itertools.combinations(format.names.items(), 2)
        if name == same
    }
    assert alike <= {frozenset({"first_norm", "last_norm"}), frozenset({"batch_norm", "statistics"})}


@pytest.mark.parametrize(
    "older, newer",
    [
        ("encoder.pos_conv.0.weight_g", "encoder.pos_conv.0.parametrizations.weight.original0"),
        ("encoder.pos_conv.0.weight_v", "encoder.pos_conv.0.parametrizations.weight.original1"),
    ],
)
def test_a_weight_norm_has_two_spellings(older, newer):
    assert (newer_spelling(older), newer_spelling(newer)) == (newer, newer)
    assert (older_spelling(newer), older_spelling(older)) == (older, older)


@pytest.mark.parametrize("name", ["encoder.layer_norm.weight", "weight_g", "quantizer.vars"])
def test_other_names_are_spelled_one_way(name):
    assert newer_spelling(name) == older_spelling(name) == name


def test_a_prefix_is_of_the_encoder_and_not_of_the_head():
    assert with_prefix({"projection": "proj"}, "w2v.", {"head": "aux"}) == {
        "encoder/projection": "w2v.proj",
        "head": "aux",
    }
