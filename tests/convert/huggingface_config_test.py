"""Our networks and transformers' configurations; that all settings come back is tested with whole folders."""

import dataclasses

import jax
import pytest

transformers = pytest.importorskip("transformers")

import tiny_transformers as tiny  # noqa: E402

from w2v2_jax import presets  # noqa: E402
from w2v2_jax.context_network import AdaptedPreNormLayer, PositionalConv, PreNormLayer  # noqa: E402
from w2v2_jax.convert.card import Card, FormatError  # noqa: E402
from w2v2_jax.convert.huggingface_config import (  # noqa: E402
    ACTIVATIONS,
    ATTENTIONS,
    CONFORMER,
    DEFAULTS,
    TRANSFORMER,
    classes_of,
    config_of,
    head_of,
    masks_of,
    model_of,
)
from w2v2_jax.feature_encoder import FairseqGroupNormConv  # noqa: E402
from w2v2_jax.heads import FrameClassifier  # noqa: E402
from w2v2_jax.layers import LayerNorm, swish  # noqa: E402
from w2v2_jax.masking import MaskSpans  # noqa: E402
from w2v2_jax.model import EncoderModel  # noqa: E402

LAYER_NORM = {"feat_extract_norm": "layer", "conv_bias": True}


@pytest.mark.parametrize("config", [transformers.Wav2Vec2Config(), transformers.Wav2Vec2ConformerConfig()])
def test_what_a_file_is_silent_about_is_what_transformers_takes(config):
    theirs = {name: getattr(config, name) for name in DEFAULTS if hasattr(config, name)}
    listed = {name: list(value) if isinstance(value, tuple) else value for name, value in theirs.items()}
    assert {name: DEFAULTS[name] for name in listed} | {"vocab_size": None} == listed | {"vocab_size": None}


def test_a_silent_file_is_base_without_a_head():
    model = model_of({"model_type": TRANSFORMER})
    assert isinstance(model, EncoderModel)
    assert model.encoder.embed_dim == 768
    assert model.encoder.feature_encoder == presets.base().encoder.feature_encoder


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
@pytest.mark.parametrize("seed", range(5))
def test_a_network_has_one_configuration_and_a_configuration_one_network(architecture, seed):
    config = tiny.config_of(architecture, 1000 + seed).to_dict() | {"architectures": [architecture]}
    model = model_of(config)
    time_mask, channel_mask = masks_of(config)
    classes = classes_of(config) if hasattr(model, "representation") else ()
    written = config_of(Card(model, True, classes=classes, time_mask=time_mask, channel_mask=channel_mask))
    known = {name: value for name, value in config.items() if name in written.keys() - {"dtype", "pad_token_id"}}
    assert {name: written[name] for name in known} | {"id2label": 0} == known | {"id2label": 0}
    again = model_of(written)
    assert again == model
    assert masks_of(written) == (time_mask, channel_mask)
    assert not hasattr(model, "representation") or classes_of(written) == classes


def test_settings_say_which_layers_there_are():
    stable = {"model_type": TRANSFORMER, "do_stable_layer_norm": True}
    assert type(model_of(stable).encoder.context_network.layer) is PreNormLayer
    layer = model_of(stable | {"adapter_attn_dim": 16}).encoder.context_network.layer
    assert type(layer) is AdaptedPreNormLayer and layer.adapter_dim == 16
    for name, attention in ATTENTIONS.items():
        config = {"model_type": CONFORMER, "position_embeddings_type": name, "hidden_act": "swish"}
        layer = model_of(config).encoder.context_network.layer
        assert (layer.attention, layer.activation) == (attention, swish)


def test_classes_are_in_the_order_of_their_numbers():
    assert classes_of({"id2label": {str(number): f"c{number}" for number in range(12)}})[9:] == ("c9", "c10", "c11")
    assert classes_of({}) == ("LABEL_0", "LABEL_1")


def test_masks_are_those_of_training():
    config = {"mask_time_prob": 0.3, "mask_time_length": 4, "mask_feature_prob": 0.2, "mask_feature_min_masks": 1}
    assert masks_of(config) == (MaskSpans(0.3, 4, 2), MaskSpans(0.2, 10, 1))


@pytest.mark.parametrize(
    "config, told",
    [
        ({"model_type": "hubert"}, "checkpoint of 'hubert'; accepted are wav2vec2 and wav2vec2-conformer$"),
        ({}, "checkpoint of None; accepted are wav2vec2 and wav2vec2-conformer$"),
        (
            {"model_type": TRANSFORMER, "architectures": ["Wav2Vec2ForMaskedLM"]},
            "checkpoint of Wav2Vec2ForMaskedLM; accepted are Wav2Vec2Model, Wav2Vec2ForPreTraining, Wav2Vec2ForCTC, "
            "Wav2Vec2ForSequenceClassification, Wav2Vec2ForAudioFrameClassification, Wav2Vec2ForXVector$",
        ),
        (
            {"model_type": CONFORMER, "architectures": ["Wav2Vec2ForCTC"]},
            "checkpoint of Wav2Vec2ForCTC; accepted are Wav2Vec2ConformerModel",
        ),
        (
            {"model_type": TRANSFORMER, "architectures": ["Wav2Vec2ForCTC", "Wav2Vec2Model"]},
            "checkpoint of Wav2Vec2ForCTC and Wav2Vec2Model; accepted are",
        ),
    ],
    ids=["family", "no family", "head", "head of another family", "two heads"],
)
def test_another_family_or_head_is_refused_with_those_that_are_not(config, told):
    with pytest.raises(FormatError, match=told):
        head_of(config)


@pytest.mark.parametrize(
    "changes, told",
    [
        ({"add_adapter": True}, "add_adapter=True, .*; accepted: False$"),
        ({"feat_extract_norm": "group", "conv_bias": True}, "conv_bias=True, .*; accepted: False$"),
        ({"feat_extract_norm": "layer"}, "conv_bias=False, .*; accepted: True$"),
        ({"feat_extract_norm": "batch"}, "feat_extract_norm='batch', .*; accepted: 'group' or 'layer'$"),
        ({"feat_extract_activation": "relu"}, "feat_extract_activation='relu', .*; accepted: 'gelu'$"),
        ({"hidden_act": "relu"}, "hidden_act='relu', .*; accepted: 'gelu'$"),
        ({"layer_norm_eps": 1e-12}, "layer_norm_eps=1e-12, .*; accepted: 1e-05$"),
        ({"proj_codevector_dim": 128}, "proj_codevector_dim=128, .*; accepted: 256$"),
        ({"adapter_attn_dim": 16}, "adapter_attn_dim=16, .*; accepted: None$"),
        (
            {"model_type": CONFORMER, "hidden_act": "relu"},
            "hidden_act='relu', .*; accepted: 'gelu' or 'swish' or 'silu'$",
        ),
        (
            {"model_type": CONFORMER, "position_embeddings_type": "sinusoidal"},
            "position_embeddings_type='sinusoidal', .*; accepted: 'relative' or 'rotary' or None$",
        ),
        ({"model_type": CONFORMER, "rotary_embedding_base": 500}, "rotary_embedding_base=500, .*; accepted: 10000$"),
        ({"conv_dim": [512] * 6}, "has 6 of conv_dim, 7 of conv_kernel, 7 of conv_stride; give one of each"),
    ],
    ids=str,
)
def test_a_setting_that_no_published_network_has_is_refused_with_those_that_some_have(changes, told):
    with pytest.raises(FormatError, match=told) as error:
        model_of({"model_type": TRANSFORMER} | changes)
    assert str(error.value).startswith("config.json has")


def network_with(encoder, **changes):
    return EncoderModel(encoder.clone(context_network=encoder.context_network.clone(**changes)))


def counting_padding(encoder):
    return encoder.clone(feature_encoder=encoder.feature_encoder.clone(first=FairseqGroupNormConv))


@pytest.mark.parametrize(
    "model, told",
    [
        (EncoderModel(counting_padding(presets.base().encoder)), "transformers has nothing like .*Fairseq"),
        (network_with(presets.conformer_relative().encoder, position=PositionalConv()), "positional convolution"),
        (
            network_with(presets.base().encoder, last_norm=LayerNorm),
            "context_network.last_norm: .*LayerNorm -> .*Ident",
        ),
        (FrameClassifier(presets.base().encoder, 2, representation=EncoderModel), "representation: .*Model -> .*Last"),
    ],
    ids=["statistics over padding", "conformer with convolutional positions", "another norm", "another representation"],
)
def test_a_network_that_transformers_does_not_have_is_refused(model, told):
    with pytest.raises(FormatError, match=told) as error:
        config_of(Card(model, True, classes=("a", "b")))
    assert "\n" not in str(error.value)


def test_what_matters_in_training_alone_is_no_obstacle():
    encoder = presets.base().encoder
    keep_all = jax.checkpoint_policies.everything_saveable
    network = encoder.context_network.clone(dropout=0.7, remat_policy=keep_all, unroll=4)
    trained = encoder.clone(context_network=network, dtype="bfloat16", feature_gradient_scale=0.0, input_dropout=0.3)
    config = config_of(Card(EncoderModel(trained), True))
    plain = config_of(Card(EncoderModel(encoder.clone(input_dropout=0.3)), True))
    assert config == plain


def test_activations_go_by_either_name():
    assert ACTIVATIONS["silu"] is ACTIVATIONS["swish"]
    model = model_of({"model_type": CONFORMER, "hidden_act": "silu"})
    assert config_of(Card(model, True))["hidden_act"] == "swish"


def test_a_card_says_what_a_configuration_is_made_of():
    card = Card(model_of({"model_type": TRANSFORMER} | LAYER_NORM), True, time_mask=MaskSpans(0.5, 7, 1))
    config = config_of(card)
    assert (config["mask_time_prob"], config["mask_time_length"], config["mask_time_min_masks"]) == (0.5, 7, 1)
    assert config_of(dataclasses.replace(card, time_mask=MaskSpans(0.0, 7, 0)))["mask_time_prob"] == 0
    assert config["conv_bias"] is True and config["feat_extract_norm"] == "layer"
