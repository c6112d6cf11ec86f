"""State dicts in torchaudio's layout, written here from its documented names alone, and folders that we write."""

import collections
import json
import logging
import math
from pathlib import Path
from typing import NamedTuple

import jax
import networks
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from w2v2_jax.conformer import CarriedPositionalConv, ConformerLayer  # noqa: E402
from w2v2_jax.context_network import (  # noqa: E402
    ContextNetwork,
    PositionalConv,
    PostNormLayer,
    PreNormLayer,
)
from w2v2_jax.convert.card import Card, FormatError  # noqa: E402
from w2v2_jax.convert.parameters import check, places  # noqa: E402
from w2v2_jax.convert.torchaudio import derived_of, names_of, read  # noqa: E402
from w2v2_jax.data.audio import normalise  # noqa: E402
from w2v2_jax.data.text import LETTERS, Vocabulary  # noqa: E402
from w2v2_jax.feature_encoder import FairseqGroupNormConv, FeatureEncoder, LayerNormConv  # noqa: E402
from w2v2_jax.frames import PAPER_CONV_LAYERS  # noqa: E402
from w2v2_jax.layers import Identity, LayerNorm  # noqa: E402
from w2v2_jax.model import CTCModel, EncoderModel, PretrainingModel, Wav2Vec2  # noqa: E402
from w2v2_jax.pretrained import Pretrained, from_pretrained, placed, save_pretrained  # noqa: E402
from w2v2_jax.quantizer import GumbelQuantizer  # noqa: E402

ARGUMENTS = {
    "extractor_mode",
    "extractor_conv_layer_config",
    "extractor_conv_bias",
    "encoder_embed_dim",
    "encoder_projection_dropout",
    "encoder_pos_conv_kernel",
    "encoder_pos_conv_groups",
    "encoder_num_layers",
    "encoder_num_heads",
    "encoder_attention_dropout",
    "encoder_ff_interm_features",
    "encoder_ff_interm_dropout",
    "encoder_dropout",
    "encoder_layer_norm_first",
    "encoder_layer_drop",
    "aux_num_out",
}
"""Of torchaudio.models.wav2vec2_model, as its documentation lists them."""

TINY = {
    "extractor_mode": "group_norm",
    "extractor_conv_layer_config": [[8, 10, 5], [8, 3, 2]],
    "extractor_conv_bias": False,
    "encoder_embed_dim": 32,
    "encoder_projection_dropout": 0.11,
    "encoder_pos_conv_kernel": 16,
    "encoder_pos_conv_groups": 4,
    "encoder_num_layers": 2,
    "encoder_num_heads": 4,
    "encoder_attention_dropout": 0.12,
    "encoder_ff_interm_features": 48,
    "encoder_ff_interm_dropout": 0.13,
    "encoder_dropout": 0.14,
    "encoder_layer_norm_first": False,
    "encoder_layer_drop": 0.15,
    "aux_num_out": 32,
}
LV60 = {"extractor_mode": "layer_norm", "extractor_conv_bias": True, "encoder_layer_norm_first": True}

PUBLISHED = TINY | {
    "extractor_conv_layer_config": PAPER_CONV_LAYERS,
    "encoder_embed_dim": 768,
    "encoder_pos_conv_kernel": 128,
    "encoder_pos_conv_groups": 16,
    "encoder_num_layers": 12,
    "encoder_ff_interm_features": 3072,
    "aux_num_out": None,
}
LARGE = {"encoder_embed_dim": 1024, "encoder_num_layers": 24, "encoder_ff_interm_features": 4096}


def linear(name, outputs, inputs):
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def norm(name, dim):
    return {f"{name}.weight": (dim,), f"{name}.bias": (dim,)}


def shapes_of(config):
    dim, ffn, taps = (config[f"encoder_{name}"] for name in ("embed_dim", "ff_interm_features", "pos_conv_kernel"))
    shapes, inputs = {}, 1
    for i, (outputs, width, _) in enumerate(config["extractor_conv_layer_config"]):
        block = f"feature_extractor.conv_layers.{i}"
        if config["extractor_mode"] == "layer_norm" or i == 0:
            shapes |= norm(f"{block}.layer_norm", outputs)
        shapes |= {f"{block}.conv.weight": (outputs, inputs, width)}
        if config["extractor_conv_bias"]:
            shapes |= {f"{block}.conv.bias": (outputs,)}
        inputs = outputs
    shapes |= norm("encoder.feature_projection.layer_norm", inputs)
    shapes |= linear("encoder.feature_projection.projection", dim, inputs)
    position = "encoder.transformer.pos_conv_embed.conv"
    shapes |= {f"{position}.bias": (dim,), f"{position}.weight_g": (1, 1, taps)}
    shapes |= {f"{position}.weight_v": (dim, dim // config["encoder_pos_conv_groups"], taps)}
    shapes |= norm("encoder.transformer.layer_norm", dim)
    for i in range(config["encoder_num_layers"]):
        layer = f"encoder.transformer.layers.{i}"
        for name in ("k_proj", "v_proj", "q_proj", "out_proj"):
            shapes |= linear(f"{layer}.attention.{name}", dim, dim)
        shapes |= norm(f"{layer}.layer_norm", dim) | norm(f"{layer}.final_layer_norm", dim)
        shapes |= linear(f"{layer}.feed_forward.intermediate_dense", ffn, dim)
        shapes |= linear(f"{layer}.feed_forward.output_dense", dim, ffn)
    return shapes | (linear("aux", config["aux_num_out"], dim) if config["aux_num_out"] else {})


def newer(state):
    """Under the names of weight norm since torch 2.0."""
    spellings = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}
    return {".".join(spellings.get(part, part) for part in name.split(".")): each for name, each in state.items()}


def state_of(config):
    torch.manual_seed(0)
    return collections.OrderedDict((name, torch.randn(shape)) for name, shape in shapes_of(config).items())


def folder_of(folder, config, state=None, labels=None):
    folder.mkdir()
    torch.save(state_of(config) if state is None else state, folder / "model.pt")
    (folder / "config.json").write_text(json.dumps(config))
    if labels:
        (folder / "labels.json").write_text(json.dumps(labels))
    return folder


class Shape(NamedTuple):
    """A tensor of which only the shape is there."""

    shape: tuple
    dtype: np.dtype = np.dtype(np.float32)

    def read(self):
        raise AssertionError("nothing of a tensor is needed to know what network it is of")


def shapes_alone(config):
    return newer({name: Shape(shape) for name, shape in shapes_of(config).items()})


def encoder_of(layer, norms=(), **context):
    network = ContextNetwork(2, layer, position=PositionalConv(16, 4), dropout=0.14, layer_drop=0.15, **context)
    return Wav2Vec2(FeatureEncoder(((8, 10, 5), (8, 3, 2)), *norms), network, 32, input_dropout=0.11)


PRE_NORM = {"first_norm": Identity, "last_norm": LayerNorm}
NETWORKS = {
    "base": (TINY, encoder_of(PostNormLayer(4, 48, 0.14, 0.12, 0.13))),
    "lv60": (TINY | LV60, encoder_of(PreNormLayer(4, 48, 0.14, 0.12, 0.13), (LayerNormConv,) * 2, **PRE_NORM)),
}

ENCODER = {
    "projection/kernel": "encoder.feature_projection.projection.weight",
    "projection/bias": "encoder.feature_projection.projection.bias",
    "feature_norm/scale": "encoder.feature_projection.layer_norm.weight",
    "feature_norm/bias": "encoder.feature_projection.layer_norm.bias",
    "context_network/position/magnitude": "encoder.transformer.pos_conv_embed.conv.weight_g",
    "context_network/position/direction": "encoder.transformer.pos_conv_embed.conv.weight_v",
    "context_network/position/bias": "encoder.transformer.pos_conv_embed.conv.bias",
    **{f"feature_encoder/block_{i}/kernel": f"feature_extractor.conv_layers.{i}.conv.weight" for i in range(2)},
}
NORMS = {
    "base": {
        "feature_encoder/block_0/norm/scale": "feature_extractor.conv_layers.0.layer_norm.weight",
        "feature_encoder/block_0/norm/bias": "feature_extractor.conv_layers.0.layer_norm.bias",
        "context_network/first_norm/scale": "encoder.transformer.layer_norm.weight",
        "context_network/first_norm/bias": "encoder.transformer.layer_norm.bias",
    },
    "lv60": {
        **{f"feature_encoder/block_{i}/bias": f"feature_extractor.conv_layers.{i}.conv.bias" for i in range(2)},
        **{
            f"feature_encoder/block_{i}/norm/{ours}": f"feature_extractor.conv_layers.{i}.layer_norm.{theirs}"
            for i in range(2)
            for ours, theirs in (("scale", "weight"), ("bias", "bias"))
        },
        "context_network/last_norm/scale": "encoder.transformer.layer_norm.weight",
        "context_network/last_norm/bias": "encoder.transformer.layer_norm.bias",
    },
}
LAYER = {
    "attention/query": "attention.q_proj",
    "attention/key": "attention.k_proj",
    "attention/value": "attention.v_proj",
    "attention/out": "attention.out_proj",
    "feed_forward/up": "feed_forward.intermediate_dense",
    "feed_forward/down": "feed_forward.output_dense",
    "attention_norm": "layer_norm",
    "output_norm": "final_layer_norm",
}


def as_ours(tensor, ours, shape):
    return (tensor.numpy().T if ours.endswith(("kernel", "direction")) else tensor.numpy()).reshape(shape)


def assert_equal_tensors(params, state, kind):
    """Each tensor is where it belongs; a mask embedding is all that they don't have."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    arrays = {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in leaves}
    seen = 0
    for path, array in arrays.items():
        head, _, ours = path.partition("/")
        if head == "head":
            expected = as_ours(state["aux.weight" if ours == "kernel" else "aux.bias"], ours, array.shape)
        elif ours.startswith("context_network/layer/"):
            module, _, leaf = ours.removeprefix("context_network/layer/").rpartition("/")
            theirs = f"{LAYER[module]}.{'bias' if leaf == 'bias' else 'weight'}"
            each = [state[f"encoder.transformer.layers.{i}.{theirs}"] for i in range(len(array))]
            expected = np.stack([as_ours(tensor, ours, array.shape[1:]) for tensor in each])
        elif ours == "mask_embedding":
            assert array.min() >= 0 and array.max() <= 1
            continue
        else:
            expected = as_ours(state[(ENCODER | NORMS[kind])[ours]], ours, array.shape)
        np.testing.assert_array_equal(array, expected, err_msg=path)
        seen += len(array) if ours.startswith("context_network/layer/") else 1
    assert seen == len(state)


@pytest.mark.parametrize("kind", NETWORKS)
def test_each_tensor_of_a_folder_is_where_it_belongs(tmp_path, kind):
    config, encoder = NETWORKS[kind]
    state = state_of(config)
    network = from_pretrained(folder_of(tmp_path / "folder", config, state))
    assert_equal_tensors(network.params, state, kind)
    assert network.card == Card(CTCModel(encoder, 32), normalise=kind == "lv60", vocabulary=LETTERS)


def test_the_newer_spelling_of_weight_norm_is_read(tmp_path):
    state = state_of(TINY)
    network = from_pretrained(folder_of(tmp_path / "folder", TINY, collections.OrderedDict(newer(state))))
    assert_equal_tensors(network.params, state, "base")


def test_a_folder_without_a_head_is_an_encoder(tmp_path):
    card = from_pretrained(folder_of(tmp_path / "folder", TINY | {"aux_num_out": None})).card
    assert card == Card(EncoderModel(NETWORKS["base"][1]), False)


def test_no_convolutions_are_those_of_the_paper():
    config = PUBLISHED | {"extractor_conv_layer_config": None}
    card, _ = read(Path("model.pt"), shapes_alone(PUBLISHED), config, {})
    assert card.model.encoder.feature_encoder.layers == PAPER_CONV_LAYERS


def test_labels_say_what_a_head_writes_and_whether_waveforms_are_normalised(tmp_path):
    vocabulary = Vocabulary(("-", "|", "A", "B"), specials=("-",), blank="-")
    labels = {
        "normalize": True,
        "vocabulary": {
            "is": "w2v2_jax.data.text.Vocabulary",
            "with": {"symbols": ["-", "|", "A", "B"], "specials": ["-"], "blank": "-"},
        },
    }
    card = from_pretrained(folder_of(tmp_path / "folder", TINY | {"aux_num_out": 4}, labels=labels)).card
    assert (card.normalise, card.vocabulary) == (True, vocabulary)


def refusal(path):
    with pytest.raises(FormatError) as error:
        from_pretrained(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    return str(error.value)


def test_a_head_of_unknown_labels_is_refused(tmp_path):
    message = refusal(folder_of(tmp_path / "folder", TINY | {"aux_num_out": 7}))
    assert "7 outputs" in message


@pytest.mark.parametrize("name", sorted(ARGUMENTS - {"extractor_conv_bias"}))
def test_a_config_that_lacks_an_argument_is_refused(tmp_path, name):
    folder = folder_of(tmp_path / "folder", {k: v for k, v in TINY.items() if k != name}, state={})
    with pytest.raises(FormatError, match=name if name != "extractor_mode" else "names no model_type"):
        from_pretrained(folder)


def test_an_unknown_mode_is_refused(tmp_path):
    folder = folder_of(tmp_path / "folder", TINY | {"extractor_mode": "batch_norm"}, state={})
    assert "extractor_mode='batch_norm'" in refusal(folder) and "'group_norm'" in refusal(folder)


# A state dict alone.

BUNDLES = {
    "WAV2VEC2_BASE": (PUBLISHED, 12),
    "WAV2VEC2_LARGE": (PUBLISHED | LARGE, 16),
    "WAV2VEC2_LARGE_LV60K": (PUBLISHED | LARGE | LV60, 16),
}
"""Arguments, but for dropouts, and heads."""


@pytest.mark.parametrize("num_labels", [None, 29, 32])
@pytest.mark.parametrize("name", BUNDLES)
def test_sizes_of_a_published_network_tell_which_it_is(name, num_labels):
    config, heads = BUNDLES[name]
    config = config | {"aux_num_out": num_labels}
    card, tensors = read(Path("model.pt"), shapes_alone(config), {}, {})
    check(tensors, places(card.model, names_of(card)), derived_of(card), "model.pt")
    encoder = card.model.encoder
    context = encoder.context_network
    dim, layers, ffn = (config[f"encoder_{key}"] for key in ("embed_dim", "num_layers", "ff_interm_features"))
    layer = PreNormLayer if config["encoder_layer_norm_first"] else PostNormLayer
    assert context.layer == layer(heads, ffn, dropout=0.0, attention_dropout=0.0, activation_dropout=0.0)
    assert (encoder.embed_dim, context.num_layers, context.position) == (dim, layers, PositionalConv(128, 16))
    assert encoder.feature_encoder.layers == PAPER_CONV_LAYERS
    assert card.normalise == (config["extractor_mode"] == "layer_norm")
    assert card.model.num_labels == num_labels if num_labels else isinstance(card.model, EncoderModel)


def test_the_published_sizes_here_are_those_that_fairseq_counts():
    """BASE has 95,044,608 parameters; a mask embedding, quantizer and two projections aren't in torchaudio's."""
    count = sum(math.prod(shape) for shape in shapes_of(PUBLISHED).values())
    quantizer = 640 * 128 + 640 * 512 + 640
    assert count == 95_044_608 - 768 - quantizer - (256 * 256 + 256) - (768 * 256 + 256)


def test_29_outputs_are_the_labels_of_the_bundles():
    card, _ = read(Path("model.pt"), shapes_alone(PUBLISHED | {"aux_num_out": 29}), {}, {})
    assert card.vocabulary.symbols == ("-", "|", *"ETAONIHSRDLUMWCFGYPBVK'XJQZ")
    assert card.vocabulary.blank_id == 0 and card.vocabulary.decode([2, 0, 1, 3]) == "E T"


def test_a_file_of_sizes_that_are_not_published_is_refused(tmp_path):
    torch.save(state_of(TINY), tmp_path / "model.pt")
    message = refusal(tmp_path / "model.pt")
    assert "no published network" in message and "config.json" in message


@pytest.mark.parametrize("part", ["projection.weight", "weight_v", "layers.0.feed_forward.intermediate_dense.weight"])
def test_a_file_without_what_tells_its_sizes_is_refused(tmp_path, part):
    torch.save({name: each for name, each in state_of(TINY).items() if not name.endswith(part)}, tmp_path / "model.pt")
    assert "lacks encoder." in refusal(tmp_path / "model.pt")


def test_a_missing_and_an_unknown_tensor_are_named(tmp_path):
    state = state_of(TINY)
    state["encoder.transformer.layers.0.attention.rel_attn_embed.weight"] = torch.zeros(1)
    assert "rel_attn_embed" in refusal(folder_of(tmp_path / "more", TINY, state))
    state = state_of(TINY)
    del state["encoder.transformer.layers.1.attention.k_proj.bias"]
    assert "layers.1.attention.k_proj.bias" in refusal(folder_of(tmp_path / "less", TINY, state))


# What we write.


def network_of(model, vocabulary=LETTERS):
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), placed(model))
    return Pretrained(Card(model, True, vocabulary), params)


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_folder_of_ours_has_just_the_arguments_and_tensors_of_torchaudio(tmp_path, kind):
    config, encoder = NETWORKS[kind]
    network = network_of(CTCModel(encoder, 32))
    save_pretrained(network, tmp_path / "folder", "torchaudio")
    written = json.loads((tmp_path / "folder" / "config.json").read_text())
    assert written.keys() == ARGUMENTS
    assert written == config
    state = torch.load(tmp_path / "folder" / "model.pt", weights_only=True)
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == shapes_of(config)
    network.params["encoder"]["mask_embedding"] = np.zeros(32)
    assert_equal_tensors(network.params, state, kind)


def test_torchaudio_and_back_is_the_same_but_for_the_mask_embedding(tmp_path, caplog):
    vocabulary = Vocabulary(("-", "|", "A", "B"), specials=("-",), blank="-")
    network = network_of(CTCModel(NETWORKS["lv60"][1], 4), vocabulary)
    with caplog.at_level(logging.WARNING):
        save_pretrained(network, tmp_path / "folder", "torchaudio")
    [warning] = [record.getMessage() for record in caplog.records if record.name.startswith("w2v2_jax")]
    assert "torchaudio" in warning and "mask embedding" in warning
    again = from_pretrained(tmp_path / "folder")
    assert again.card == network.card
    for params in (again.params, network.params):
        assert params["encoder"].pop("mask_embedding").shape == (32,)
    jax.tree.map(np.testing.assert_array_equal, again.params, network.params)


def write_refusal(model, path):
    with pytest.raises(FormatError) as error:
        save_pretrained(network_of(model), path, "torchaudio")
    assert not path.exists() and "\n" not in str(error.value)
    return str(error.value)


def test_a_network_of_pretraining_is_refused_with_what_has_no_place(tmp_path):
    model = PretrainingModel(NETWORKS["base"][1], GumbelQuantizer(16, 2, 6))
    message = write_refusal(model, tmp_path / "folder")
    assert "no place for" in message and any(part in message for part in ("quantizer/", "project_"))


def test_a_conformer_is_refused_with_what_has_no_place(tmp_path):
    context = ContextNetwork(2, ConformerLayer(4, 48, width=3), position=CarriedPositionalConv(16, 4), **PRE_NORM)
    model = CTCModel(NETWORKS["base"][1].clone(context_network=context), 32)
    assert "no place for encoder/context_network/layer/" in write_refusal(model, tmp_path / "folder")


def test_blocks_that_torchaudio_does_not_have_are_refused(tmp_path):
    features = FeatureEncoder(((8, 10, 5), (8, 3, 2)), FairseqGroupNormConv)
    model = CTCModel(NETWORKS["base"][1].clone(feature_encoder=features), 32)
    assert "FairseqGroupNormConv" in write_refusal(model, tmp_path / "folder")


@pytest.mark.parametrize("name", ["base CTC", "lv60 encoder"])
def test_torchaudio_itself_loads_a_folder_of_ours_and_computes_the_same(tmp_path, name):
    torchaudio = pytest.importorskip("torchaudio")
    card = networks.CARDS[name]
    ours = Pretrained(card, networks.params_of(card.model))
    save_pretrained(ours, tmp_path / "folder", "torchaudio")
    theirs = torchaudio.models.wav2vec2_model(**json.loads((tmp_path / "folder" / "config.json").read_text())).eval()
    theirs.load_state_dict(torch.load(tmp_path / "folder" / "model.pt"))
    rng = np.random.default_rng(0)
    clips = [normalise(rng.normal(size=9000).astype(np.float32)) for _ in range(2)]
    with torch.no_grad():
        expected, _ = theirs(torch.tensor(np.stack(clips)))
    output = ours(clips)
    np.testing.assert_allclose(getattr(output, "context", output), expected, atol=1e-4, rtol=1e-4)
