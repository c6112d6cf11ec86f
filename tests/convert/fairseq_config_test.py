from pathlib import Path

import pytest

from w2v2_jax.context_network import PositionalConv, PostNormLayer, PreNormLayer, SelfAttention
from w2v2_jax.convert.card import Card, FormatError
from w2v2_jax.convert.fairseq_config import cfg_of, ctc_model, masks_of, pretraining_model, tuning_of
from w2v2_jax.data.text import LETTERS
from w2v2_jax.frames import PAPER_CONV_LAYERS
from w2v2_jax.masking import MaskSpans
from w2v2_jax.model import CTCModel
from w2v2_jax.presets import base, conformer_relative, conformer_rotary, large, large_lv60, xls_r_1b

FILE = Path("folder/model.pt")
QUANTISED = {"quantize_targets": True}
CONFORMER = QUANTISED | {
    "extractor_mode": "layer_norm",
    "conv_bias": True,
    "layer_type": "conformer",
    "layer_norm_first": True,
    "attn_type": "espnet",
    "pos_enc_type": "rel_pos",
}


@pytest.mark.parametrize("preset", [base, large, large_lv60, xls_r_1b, conformer_relative, conformer_rotary])
def test_each_preset_is_what_fairseq_makes_of_its_cfg(preset):
    masks = {"time_mask": MaskSpans(0.65, 10, 2), "channel_mask": MaskSpans(0.25, 64, 0)}
    cfg = cfg_of(Card(preset(), False, **masks))
    assert cfg["model"]["_name"] == "wav2vec2" and cfg["task"]["_name"] == "audio_pretraining"
    assert pretraining_model(FILE, cfg["model"]) == preset()
    assert masks_of(cfg["model"]) == masks


def test_a_file_that_is_silent_has_the_defaults_of_fairseq():
    model = pretraining_model(FILE, QUANTISED)
    encoder, context = model.encoder, model.encoder.context_network
    assert encoder.feature_encoder.layers == PAPER_CONV_LAYERS
    assert (encoder.embed_dim, encoder.input_dropout, encoder.feature_gradient_scale) == (768, 0.0, 1.0)
    assert context.layer == PostNormLayer(12, 3072, dropout=0.1, attention_dropout=0.1, activation_dropout=0.0)
    assert (context.num_layers, context.layer_drop, context.position) == (12, 0.0, PositionalConv(128, 16))
    assert (model.quantizer.dim, model.quantizer.num_groups, model.quantizer.num_entries) == (768, 2, 320)
    assert model.feature_dropout == 0
    assert masks_of({}) == {"time_mask": MaskSpans(0.65, 10, 2), "channel_mask": MaskSpans(0.0, 10, 0)}


def test_fine_tuning_that_is_silent_has_its_own_defaults():
    pretraining = {"dropout": 0.1, "encoder_layerdrop": 0.2, "mask_prob": 0.65, "layer_norm_first": True}
    model = ctc_model(FILE, pretraining, {"layerdrop": 0.05}, 32)
    encoder, context = model.encoder, model.encoder.context_network
    assert context.layer == PreNormLayer(12, 3072, dropout=0.0, attention_dropout=0.0, activation_dropout=0.0)
    assert (context.dropout, context.layer_drop, encoder.feature_gradient_scale) == (0.0, 0.05, 0.0)
    assert (model.num_labels, model.output_dropout) == (32, 0.0)
    assert masks_of(tuning_of({})) == {"time_mask": MaskSpans(0.5, 10, 2), "channel_mask": MaskSpans(0.0, 64, 0)}
    assert not tuning_of({})["apply_mask"]


def test_of_the_settings_of_fine_tuning_only_those_that_it_has_are_taken():
    assert "encoder_layers" not in tuning_of({"encoder_layers": 3, "dropout": 0.3})
    assert tuning_of({"encoder_layers": 3, "dropout": 0.3})["dropout"] == 0.3


@pytest.mark.parametrize(
    "text, layers",
    [
        ("[(512, 10, 5)] + [(512, 3, 2)] * 4 + [(512,2,2)] + [(512,2,2)]", PAPER_CONV_LAYERS),
        ("[(512, 10, 5)] + [(512, 3, 2)] * 4 + [(512,2,2)] * 2", PAPER_CONV_LAYERS),
        (" [(8, 10, 5), (8, 3, 2)]\n", ((8, 10, 5), (8, 3, 2))),
        ("2 * [(8, 3, 2)]", ((8, 3, 2), (8, 3, 2))),
        ("([(8, 3, 2)] + [(8, 2, 2)]) * 2", ((8, 3, 2), (8, 2, 2)) * 2),
    ],
)
def test_convolutions_are_read_as_fairseq_writes_them(text, layers):
    model = pretraining_model(FILE, QUANTISED | {"conv_feature_layers": text})
    assert model.encoder.feature_encoder.layers == layers


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('touch x')",
        "[(8, 3, 2)] + [__import__('os').system('touch x')]",
        "[(8, 3, len('ab'))]",
        "[x for x in ()]",
        "[(8, 3)]",
        "[('wide', 3, 2)]",
        "8",
        "",
        "[(8, 3, 2)] * 4 +",
        "[(8, 3, 2)] ** 2",
        "[(8, 3, 2)] * 10 ** 18",
        "[(8, 3, 2)] * 1000000000000000000",
        "(" * 1000 + ")" * 1000,
    ],
)
def test_anything_else_for_the_convolutions_is_refused_and_not_run(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FormatError, match=r"folder/model\.pt has conv_feature_layers=.*accepted are lists"):
        pretraining_model(FILE, QUANTISED | {"conv_feature_layers": text})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "settings",
    [
        {"quantize_targets": False},
        {"quantize_input": True},
        {"target_glu": True},
        {"quantizer_depth": 2},
        {"latent_dim": 99},
        {"pos_conv_depth": 5},
        {"conv_pos_batch_norm": True},
        {"activation_fn": "relu"},
        {"extractor_mode": "batch_norm"},
        {"conv_bias": True},
        {"layer_type": "trf_adp"},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_a_setting_that_would_make_another_network_is_refused(settings):
    [(name, value)] = settings.items()
    with pytest.raises(FormatError, match=rf"folder/model\.pt has {name}={value!r}.*accepted: "):
        pretraining_model(FILE, QUANTISED | settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"layer_norm_first": False},  # the norm of the whole would stand before the layers
        {"attn_type": ""},  # attention that is given no positions
        {"pos_enc_type": "learned"},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_a_setting_that_would_make_another_conformer_is_refused(settings):
    [(name, value)] = settings.items()
    with pytest.raises(FormatError, match=rf"folder/model\.pt has {name}={value!r}.*accepted: "):
        pretraining_model(FILE, CONFORMER | settings)


def test_a_conformer_with_absolute_positions_has_those_of_the_convolution():
    model = pretraining_model(FILE, CONFORMER | {"pos_enc_type": "abs"})
    context = model.encoder.context_network
    assert (context.layer.attention, context.position) == (SelfAttention, PositionalConv(128, 16))
    assert pretraining_model(FILE, cfg_of(Card(model, False))["model"]) == model


def test_a_conformer_swishes_whatever_its_settings_say():
    """In fairseq the activation of a conformer stands in the code."""
    models = [pretraining_model(FILE, CONFORMER | {"activation_fn": name}) for name in ("gelu", "relu", "swish")]
    assert models[0] == models[1] == models[2]


def test_masks_are_applied_in_fine_tuning_just_where_there_are_any():
    network = CTCModel(base().encoder, 32)
    without = cfg_of(Card(network, False, LETTERS))
    masked = cfg_of(Card(network, False, LETTERS, channel_mask=MaskSpans(0.1, 64, 0)))
    assert (without["model"]["apply_mask"], masked["model"]["apply_mask"]) == (False, True)
