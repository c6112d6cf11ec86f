"""Files in fairseq's layout, written here from its documented names alone, and files that we write for it."""

import argparse
import collections
import functools
import logging
import re
import sys
import types
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from w2v2_jax.conformer import (  # noqa: E402
    CarriedPositionalConv,
    ConformerLayer,
    RelativeAttention,
    RotaryAttention,
)
from w2v2_jax.context_network import (  # noqa: E402
    ContextNetwork,
    PositionalConv,
    PostNormLayer,
    PreNormLayer,
    SelfAttention,
)
from w2v2_jax.convert.card import Card, FormatError  # noqa: E402
from w2v2_jax.data.text import LETTERS, SPECIALS, Vocabulary  # noqa: E402
from w2v2_jax.description import describe  # noqa: E402
from w2v2_jax.feature_encoder import FeatureEncoder, LayerNormConv  # noqa: E402
from w2v2_jax.heads import SequenceClassifier  # noqa: E402
from w2v2_jax.layers import Identity, LayerNorm, gelu  # noqa: E402
from w2v2_jax.masking import MaskSpans  # noqa: E402
from w2v2_jax.model import CTCModel, EncoderModel, PretrainingModel, Wav2Vec2  # noqa: E402
from w2v2_jax.pretrained import Pretrained, from_pretrained, placed, save_pretrained  # noqa: E402
from w2v2_jax.quantizer import GumbelQuantizer  # noqa: E402

pytestmark = pytest.mark.usefixtures("quick_compilation")

CONV_LAYERS = ((8, 10, 5), (8, 3, 2), (8, 2, 2))
DIM, HEADS, FFN, LAYERS, WIDTH, TAPS, GROUPS = 32, 4, 48, 2, 5, 16, 4
CODE_DIM, CODEBOOKS, ENTRIES = 16, 2, 6

SIZES = {
    "conv_feature_layers": "[(8, 10, 5)] + [(8, 3, 2)] * 1 + [(8,2,2)]",
    "encoder_layers": LAYERS,
    "encoder_embed_dim": DIM,
    "encoder_ffn_embed_dim": FFN,
    "encoder_attention_heads": HEADS,
    "conv_pos": TAPS,
    "conv_pos_groups": GROUPS,
    "depthwise_conv_kernel_size": WIDTH,
    "final_dim": CODE_DIM,
    "latent_vars": ENTRIES,
    "latent_groups": CODEBOOKS,
    "latent_dim": 0,
    "latent_temp": [2.0, 0.5, 0.999995],
    "quantize_targets": True,
    "activation_fn": "gelu",
}
RATES = {
    "dropout": 0.11,
    "attention_dropout": 0.12,
    "activation_dropout": 0.13,
    "dropout_input": 0.14,
    "dropout_features": 0.15,
    "encoder_layerdrop": 0.16,
    "feature_grad_mult": 0.25,
    "mask_prob": 0.65,
    "mask_length": 7,
    "mask_channel_prob": 0.1,
    "mask_channel_length": 3,
}
CONFORMER = {
    "extractor_mode": "layer_norm",
    "conv_bias": True,
    "layer_norm_first": True,
    "layer_type": "conformer",
    "attn_type": "espnet",
}
KINDS = {
    "base": {"extractor_mode": "default", "conv_bias": False, "layer_norm_first": False},
    "lv60": {"extractor_mode": "layer_norm", "conv_bias": True, "layer_norm_first": True},
    "rel_pos": CONFORMER | {"pos_enc_type": "rel_pos"},
    "rope": CONFORMER | {"pos_enc_type": "rope"},
    "abs": CONFORMER | {"pos_enc_type": "abs"},
}
TUNING = {
    "apply_mask": True,
    "dropout": 0.01,
    "attention_dropout": 0.02,
    "activation_dropout": 0.03,
    "dropout_input": 0.04,
    "final_dropout": 0.05,
    "layerdrop": 0.06,
    "feature_grad_mult": 0.0,
    "mask_prob": 0.5,
    "mask_length": 9,
    "mask_channel_prob": 0.2,
    "mask_channel_length": 4,
}


def linear(name, outputs, inputs):
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def norm(name, dim=DIM):
    return {f"{name}.weight": (dim,), f"{name}.bias": (dim,)}


def layer_shapes(kind, layer):
    if kind in ("base", "lv60"):
        shapes = {}
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= linear(f"{layer}.self_attn.{name}", DIM, DIM)
        shapes |= norm(f"{layer}.self_attn_layer_norm") | norm(f"{layer}.final_layer_norm")
        return shapes | linear(f"{layer}.fc1", FFN, DIM) | linear(f"{layer}.fc2", DIM, FFN)
    shapes = norm(f"{layer}.self_attn_layer_norm") | norm(f"{layer}.final_layer_norm")
    for name in ("linear_q", "linear_k", "linear_v", "linear_out"):
        shapes |= linear(f"{layer}.self_attn.{name}", DIM, DIM)
    for name in ("ffn1", "ffn2"):
        shapes |= norm(f"{layer}.{name}.layer_norm")
        shapes |= linear(f"{layer}.{name}.w_1", FFN, DIM) | linear(f"{layer}.{name}.w_2", DIM, FFN)
    convolution = f"{layer}.conv_module"
    shapes |= norm(f"{convolution}.layer_norm") | norm(f"{convolution}.batch_norm")
    shapes |= {
        f"{convolution}.pointwise_conv1.weight": (2 * DIM, DIM, 1),
        f"{convolution}.depthwise_conv.weight": (DIM, 1, WIDTH),
        f"{convolution}.batch_norm.running_mean": (DIM,),
        f"{convolution}.batch_norm.running_var": (DIM,),
        f"{convolution}.batch_norm.num_batches_tracked": (),
        f"{convolution}.pointwise_conv2.weight": (DIM, DIM, 1),
    }
    if kind == "rel_pos":
        head = (HEADS, DIM // HEADS)
        shapes |= {f"{layer}.self_attn.pos_bias_u": head, f"{layer}.self_attn.pos_bias_v": head}
        shapes |= {f"{layer}.self_attn.linear_pos.weight": (DIM, DIM)}
    if kind == "rope":
        shapes |= {f"{layer}.self_attn.rotary_emb.inv_freq": (DIM // HEADS // 2,)}
    return shapes


def encoder_shapes(kind):
    shapes = {"mask_emb": (DIM,)} | norm("layer_norm", 8) | linear("post_extract_proj", DIM, 8)
    for i, (outputs, width, _) in enumerate(CONV_LAYERS):
        block = f"feature_extractor.conv_layers.{i}"
        shapes |= {f"{block}.0.weight": (outputs, 8 if i else 1, width)}
        if KINDS[kind]["conv_bias"]:
            shapes |= {f"{block}.0.bias": (outputs,)}
        if KINDS[kind]["extractor_mode"] == "layer_norm":
            shapes |= norm(f"{block}.2.1", outputs)
    if KINDS[kind]["extractor_mode"] == "default":
        shapes |= norm("feature_extractor.conv_layers.0.2", 8)
    position = "encoder.pos_conv.0"
    shapes |= {f"{position}.bias": (DIM,), f"{position}.weight_g": (1, 1, TAPS)}
    shapes |= {f"{position}.weight_v": (DIM, DIM // GROUPS, TAPS)} | norm("encoder.layer_norm")
    for layer in range(LAYERS):
        shapes |= layer_shapes(kind, f"encoder.layers.{layer}")
    return shapes


def pretraining_shapes(kind):
    quantizer = {"quantizer.vars": (1, CODEBOOKS * ENTRIES, CODE_DIM // CODEBOOKS)}
    quantizer |= linear("quantizer.weight_proj", CODEBOOKS * ENTRIES, 8)
    heads = linear("project_q", CODE_DIM, CODE_DIM) | linear("final_proj", CODE_DIM, DIM)
    return encoder_shapes(kind) | quantizer | heads


def finetuned_shapes(kind, num_labels=32):
    encoder = {f"w2v_encoder.w2v_model.{name}": shape for name, shape in encoder_shapes(kind).items()}
    return encoder | linear("w2v_encoder.proj", num_labels, DIM)


def state_of(shapes):
    """Weights in general position: norms are not the identity, biases not zero, attention not flat."""
    torch.manual_seed(0)
    state = collections.OrderedDict()
    for name, shape in shapes.items():
        state[name] = 0.3 * torch.randn(shape)
        if name.endswith(("norm.weight", ".2.weight", ".2.1.weight", "weight_g", "running_var")):
            state[name] = state[name].abs() + 0.5
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(int(name.split("layers.")[1][0]) + 5)
        if name.endswith("inv_freq"):
            state[name] = 1.0 / (10000 ** (torch.arange(0, DIM // HEADS, 2).float() / (DIM // HEADS)))
    return state


def checkpoint(state, **settings):
    return settings | {
        "model": state,
        "criterion": None,
        "optimizer_history": [
            {"criterion_name": "Wav2vecCriterion", "optimizer_name": "Adam", "lr_scheduler_state": {}, "num_updates": 7}
        ],
        "extra_state": {"train_iterator": {"epoch": 3}, "metrics": collections.OrderedDict()},
    }


def in_args(model, normalize, arch, **more):
    return {"args": argparse.Namespace(arch=arch, task="audio_pretraining", normalize=normalize, **model, **more)}


def in_cfg(model, normalize, name, **more):
    task = {"_name": "audio_pretraining", "data": "/data", "normalize": normalize}
    cfg = {"_name": None, "common": {"fp16": True}, "task": task, "model": {"_name": name} | model | more}
    return {"args": None, "cfg": cfg}


STYLES = {
    "args": in_args,
    "args and no cfg": lambda *settings, **more: in_args(*settings, **more) | {"cfg": None},
    "cfg": in_cfg,
}


def pretrained_file(path, kind, style="cfg", normalize=False, layout="zip", shapes=None):
    state = state_of(shapes or pretraining_shapes(kind))
    content = checkpoint(state, **STYLES[style](SIZES | RATES | KINDS[kind], normalize, "wav2vec2"))
    torch.save(content, path, _use_new_zipfile_serialization=layout == "zip")
    return state


def finetuned_file(path, kind="base", style="cfg", normalize=False, num_labels=32, tuning=TUNING, **content):
    inner = STYLES[style](SIZES | RATES | KINDS[kind], normalize, "wav2vec2")
    inner = inner["cfg"] if style == "cfg" else inner["args"]
    state = state_of(finetuned_shapes(kind, num_labels))
    settings = STYLES[style](tuning, normalize, "wav2vec_ctc", w2v_args=inner, w2v_path="/x.pt")
    torch.save(checkpoint(state, **settings) | content, path)
    return state


class Names(NamedTuple):
    """Where fairseq's tensors are among our parameters."""

    ours: str
    fairseq: str


ENCODER = (
    Names("mask_embedding", "mask_emb"),
    Names("feature_norm/scale", "layer_norm.weight"),
    Names("feature_norm/bias", "layer_norm.bias"),
    Names("projection/kernel", "post_extract_proj.weight"),
    Names("projection/bias", "post_extract_proj.bias"),
    Names("context_network/position/magnitude", "encoder.pos_conv.0.weight_g"),
    Names("context_network/position/direction", "encoder.pos_conv.0.weight_v"),
    Names("context_network/position/bias", "encoder.pos_conv.0.bias"),
    Names("feature_encoder/block_{}/kernel", "feature_extractor.conv_layers.{}.0.weight"),
)
BASE = (
    Names("feature_encoder/block_0/norm/scale", "feature_extractor.conv_layers.0.2.weight"),
    Names("feature_encoder/block_0/norm/bias", "feature_extractor.conv_layers.0.2.bias"),
    Names("context_network/first_norm/scale", "encoder.layer_norm.weight"),
    Names("context_network/first_norm/bias", "encoder.layer_norm.bias"),
)
LV60 = (
    Names("feature_encoder/block_{}/bias", "feature_extractor.conv_layers.{}.0.bias"),
    Names("feature_encoder/block_{}/norm/scale", "feature_extractor.conv_layers.{}.2.1.weight"),
    Names("feature_encoder/block_{}/norm/bias", "feature_extractor.conv_layers.{}.2.1.bias"),
    Names("context_network/last_norm/scale", "encoder.layer_norm.weight"),
    Names("context_network/last_norm/bias", "encoder.layer_norm.bias"),
)
TRANSFORMER = (
    Names("attention/query/kernel", "self_attn.q_proj.weight"),
    Names("attention/query/bias", "self_attn.q_proj.bias"),
    Names("attention/key/kernel", "self_attn.k_proj.weight"),
    Names("attention/key/bias", "self_attn.k_proj.bias"),
    Names("attention/value/kernel", "self_attn.v_proj.weight"),
    Names("attention/value/bias", "self_attn.v_proj.bias"),
    Names("attention/out/kernel", "self_attn.out_proj.weight"),
    Names("attention/out/bias", "self_attn.out_proj.bias"),
    Names("attention_norm/scale", "self_attn_layer_norm.weight"),
    Names("attention_norm/bias", "self_attn_layer_norm.bias"),
    Names("feed_forward/up/kernel", "fc1.weight"),
    Names("feed_forward/up/bias", "fc1.bias"),
    Names("feed_forward/down/kernel", "fc2.weight"),
    Names("feed_forward/down/bias", "fc2.bias"),
    Names("output_norm/scale", "final_layer_norm.weight"),
    Names("output_norm/bias", "final_layer_norm.bias"),
)
CONFORMER_LAYER = (
    Names("attention/query/kernel", "self_attn.linear_q.weight"),
    Names("attention/query/bias", "self_attn.linear_q.bias"),
    Names("attention/key/kernel", "self_attn.linear_k.weight"),
    Names("attention/key/bias", "self_attn.linear_k.bias"),
    Names("attention/value/kernel", "self_attn.linear_v.weight"),
    Names("attention/value/bias", "self_attn.linear_v.bias"),
    Names("attention/out/kernel", "self_attn.linear_out.weight"),
    Names("attention/out/bias", "self_attn.linear_out.bias"),
    Names("attention_norm/scale", "self_attn_layer_norm.weight"),
    Names("attention_norm/bias", "self_attn_layer_norm.bias"),
    *(
        Names(f"{ours}_ffn{place}", f"{theirs}.{name}")
        for ours, theirs in (("first", "ffn1"), ("second", "ffn2"))
        for place, name in (
            ("_norm/scale", "layer_norm.weight"),
            ("_norm/bias", "layer_norm.bias"),
            ("/up/kernel", "w_1.weight"),
            ("/up/bias", "w_1.bias"),
            ("/down/kernel", "w_2.weight"),
            ("/down/bias", "w_2.bias"),
        )
    ),
    Names("convolution/norm/scale", "conv_module.layer_norm.weight"),
    Names("convolution/norm/bias", "conv_module.layer_norm.bias"),
    Names("convolution/up/kernel", "conv_module.pointwise_conv1.weight"),
    Names("convolution/depthwise/kernel", "conv_module.depthwise_conv.weight"),
    Names("convolution/batch_norm/scale", "conv_module.batch_norm.weight"),
    Names("convolution/batch_norm/bias", "conv_module.batch_norm.bias"),
    Names("convolution/batch_norm/statistics/mean", "conv_module.batch_norm.running_mean"),
    Names("convolution/batch_norm/statistics/variance", "conv_module.batch_norm.running_var"),
    Names("convolution/batch_norm/statistics/count", "conv_module.batch_norm.num_batches_tracked"),
    Names("convolution/down/kernel", "conv_module.pointwise_conv2.weight"),
    Names("output_norm/scale", "final_layer_norm.weight"),
    Names("output_norm/bias", "final_layer_norm.bias"),
)
REL_POS = (
    Names("attention/position/kernel", "self_attn.linear_pos.weight"),
    Names("attention/content_bias", "self_attn.pos_bias_u"),
    Names("attention/position_bias", "self_attn.pos_bias_v"),
)
PRETRAINING_HEADS = (
    Names("quantizer/logits/kernel", "quantizer.weight_proj.weight"),
    Names("quantizer/logits/bias", "quantizer.weight_proj.bias"),
    Names("quantizer/codebook", "quantizer.vars"),
    Names("project_context/kernel", "final_proj.weight"),
    Names("project_context/bias", "final_proj.bias"),
    Names("project_quantized/kernel", "project_q.weight"),
    Names("project_quantized/bias", "project_q.bias"),
)
CTC_HEAD = (Names("head/kernel", "w2v_encoder.proj.weight"), Names("head/bias", "w2v_encoder.proj.bias"))


def table(kind, prefix, heads):
    """Our paths by fairseq's names, and the number of the layer where ours has all of them in one."""
    found = {}
    for ours, theirs in ENCODER + (BASE if kind == "base" else LV60):
        for i in range(len(CONV_LAYERS)) if "{}" in ours else [0]:
            found[prefix + theirs.format(i)] = ("encoder/" + ours.format(i), None)
    layer = TRANSFORMER if kind in ("base", "lv60") else CONFORMER_LAYER
    for ours, theirs in layer + (REL_POS if kind == "rel_pos" else ()):
        for i in range(LAYERS):
            found[f"{prefix}encoder.layers.{i}.{theirs}"] = (f"encoder/context_network/layer/{ours}", i)
    return found | {theirs: (ours, None) for ours, theirs in heads}


def assert_equal_tensors(params, state, where):
    """Each tensor is where it belongs, and nothing else is anywhere."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    arrays = {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in leaves}
    assert {ours for ours, _ in where.values()} == arrays.keys()
    assert {name for name in state if not name.endswith("inv_freq")} == where.keys()
    for name, (ours, layer) in where.items():
        array, theirs = arrays[ours], state[name].numpy()
        array = array if layer is None else array[layer]
        turned = theirs.T if ours.endswith(("kernel", "direction")) else theirs
        np.testing.assert_array_equal(array, turned.reshape(array.shape), err_msg=name)


NETWORK = {"first_norm": Identity, "last_norm": LayerNorm}


def context_of(kind, rates, layer_drop):
    dropout, attention_dropout, activation_dropout = rates
    layer = {
        "num_heads": HEADS,
        "ffn_dim": FFN,
        "dropout": dropout,
        "attention_dropout": attention_dropout,
        "activation_dropout": activation_dropout,
    }
    network = {"num_layers": LAYERS, "dropout": dropout, "layer_drop": layer_drop}
    if kind == "base":
        return ContextNetwork(layer=PostNormLayer(**layer), position=PositionalConv(TAPS, GROUPS), **network)
    if kind == "lv60":
        return ContextNetwork(layer=PreNormLayer(**layer), position=PositionalConv(TAPS, GROUPS), **NETWORK, **network)
    attention, position = {
        "rel_pos": (RelativeAttention, CarriedPositionalConv),
        "rope": (RotaryAttention, CarriedPositionalConv),
        "abs": (SelfAttention, PositionalConv),
    }[kind]
    conformer = ConformerLayer(attention=attention, width=WIDTH, convolution_dropout=dropout, **layer)
    return ContextNetwork(layer=conformer, position=position(TAPS, GROUPS), **NETWORK, **network)


def encoder_of(kind, context, input_dropout, gradient_scale):
    norms = () if kind == "base" else (LayerNormConv, LayerNormConv)
    return Wav2Vec2(FeatureEncoder(CONV_LAYERS, *norms), context, DIM, input_dropout, gradient_scale)


def pretraining_card(kind, normalise=False):
    encoder = encoder_of(kind, context_of(kind, (0.11, 0.12, 0.13), 0.16), 0.14, 0.25)
    model = PretrainingModel(encoder, GumbelQuantizer(CODE_DIM, CODEBOOKS, ENTRIES), feature_dropout=0.15)
    return Card(model, normalise, time_mask=MaskSpans(0.65, 7, 2), channel_mask=MaskSpans(0.1, 3, 0))


def ctc_card(kind, normalise=False, vocabulary=LETTERS):
    encoder = encoder_of(kind, context_of(kind, (0.01, 0.02, 0.03), 0.06), 0.04, 0.0)
    model = CTCModel(encoder, len(vocabulary), output_dropout=0.05)
    masks = {"time_mask": MaskSpans(0.5, 9, 2), "channel_mask": MaskSpans(0.2, 4, 0)}
    return Card(model, normalise, vocabulary, **masks)


@functools.cache
def random_params(model):
    """Whole numbers, as the counters among them must be."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: rng.integers(-99, 99, x.shape).astype(np.float32), placed(model))


def assert_same(card, expected):
    assert describe(card) == describe(expected)


@pytest.mark.parametrize("style, layout", [("args", "legacy"), ("args and no cfg", "zip"), ("cfg", "zip")])
def test_each_tensor_of_a_pretrained_network_is_where_it_belongs(tmp_path, style, layout):
    state = pretrained_file(tmp_path / "base.pt", "base", style, layout=layout)
    network = from_pretrained(tmp_path / "base.pt")
    assert_equal_tensors(network.params, state, table("base", "", PRETRAINING_HEADS))
    assert_same(network.card, pretraining_card("base"))


@pytest.mark.parametrize("kind", ["lv60", "rel_pos", "rope", "abs"])
def test_each_architecture_is_read(tmp_path, kind):
    state = pretrained_file(tmp_path / "model.pt", kind, normalize=True)
    network = from_pretrained(tmp_path / "model.pt")
    assert_equal_tensors(network.params, state, table(kind, "", PRETRAINING_HEADS))
    assert_same(network.card, pretraining_card(kind, normalise=True))


@pytest.mark.parametrize(
    "kind, style",
    [("base", "args"), ("base", "cfg"), ("lv60", "args and no cfg"), ("rel_pos", "cfg")],
)
def test_a_fine_tuned_network_has_sizes_from_pretraining_and_the_rest_from_fine_tuning(tmp_path, kind, style):
    state = finetuned_file(tmp_path / "model.pt", kind, style, normalize=kind == "lv60")
    network = from_pretrained(tmp_path / "model.pt")
    assert_equal_tensors(network.params, state, table(kind, "w2v_encoder.w2v_model.", CTC_HEAD))
    assert_same(network.card, ctc_card(kind, normalise=kind == "lv60"))


def test_fine_tuning_without_masks_has_none(tmp_path):
    finetuned_file(tmp_path / "model.pt", tuning=TUNING | {"apply_mask": False})
    card = from_pretrained(tmp_path / "model.pt").card
    assert (card.time_mask.prob, card.channel_mask.prob) == (0, 0)


def test_the_newer_spelling_of_weight_norm_is_read(tmp_path):
    shapes = {
        name.replace("weight_g", "parametrizations.weight.original0").replace(
            "weight_v", "parametrizations.weight.original1"
        ): shape
        for name, shape in pretraining_shapes("base").items()
    }
    state = pretrained_file(tmp_path / "model.pt", "base", shapes=shapes)
    assert "encoder.pos_conv.0.parametrizations.weight.original1" in state
    position = from_pretrained(tmp_path / "model.pt").params["encoder"]["context_network"]["position"]
    direction, magnitude = (state[f"encoder.pos_conv.0.parametrizations.weight.original{i}"].numpy() for i in (1, 0))
    np.testing.assert_array_equal(position["direction"], direction.T)
    np.testing.assert_array_equal(position["magnitude"], magnitude.reshape(-1))


# Outputs: the same weights in the classes of transformers.

AS_TRANSFORMERS = (
    (r"^w2v_encoder\.w2v_model\.", ""),
    (r"^w2v_encoder\.proj\.", "lm_head."),
    (r"^feature_extractor\.conv_layers\.(\d)\.0\.", r"feature_extractor.conv_layers.\1.conv."),
    (r"^feature_extractor\.conv_layers\.(\d)\.2\.(1\.)?", r"feature_extractor.conv_layers.\1.layer_norm."),
    (r"^layer_norm\.", "feature_projection.layer_norm."),
    (r"^post_extract_proj\.", "feature_projection.projection."),
    (r"^mask_emb$", "masked_spec_embed"),
    (r"^encoder\.pos_conv\.0\.weight_g$", "encoder.pos_conv_embed.conv.parametrizations.weight.original0"),
    (r"^encoder\.pos_conv\.0\.weight_v$", "encoder.pos_conv_embed.conv.parametrizations.weight.original1"),
    (r"^encoder\.pos_conv\.0\.bias$", "encoder.pos_conv_embed.conv.bias"),
    (r"\.self_attn\.([qkv]|out)_proj\.", r".attention.\1_proj."),
    (r"\.fc1\.", ".feed_forward.intermediate_dense."),
    (r"\.fc2\.", ".feed_forward.output_dense."),
    (r"\.ffn(\d)\.layer_norm\.", r".ffn\1_layer_norm."),
    (r"\.ffn(\d)\.w_1\.", r".ffn\1.intermediate_dense."),
    (r"\.ffn(\d)\.w_2\.", r".ffn\1.output_dense."),
    (r"^quantizer\.vars$", "quantizer.codevectors"),
    (r"^final_proj\.", "project_hid."),
)


def as_transformers(state, base, kind):
    """The state dict under transformers' names, its encoder under `base`."""
    renamed = {}
    for name, tensor in state.items():
        for pattern, replacement in AS_TRANSFORMERS:
            name = re.sub(pattern, replacement, name)
        if kind in ("base", "lv60"):
            name = name.replace("self_attn_layer_norm", "layer_norm")
        head = name.startswith(("lm_head", "quantizer", "project_"))
        renamed[name if head else base + name] = tensor
    return renamed


def their_config(cls, kind, **settings):
    dims, widths, strides = zip(*CONV_LAYERS, strict=True)
    return cls(
        conv_dim=dims,
        conv_kernel=widths,
        conv_stride=strides,
        hidden_size=DIM,
        num_attention_heads=HEADS,
        intermediate_size=FFN,
        num_hidden_layers=LAYERS,
        num_conv_pos_embeddings=TAPS,
        num_conv_pos_embedding_groups=GROUPS,
        codevector_dim=CODE_DIM,
        proj_codevector_dim=CODE_DIM,
        num_codevector_groups=CODEBOOKS,
        num_codevectors_per_group=ENTRIES,
        feat_extract_norm="group" if kind == "base" else "layer",
        conv_bias=kind != "base",
        **settings,
    )


def waveforms():
    return np.random.default_rng(3).normal(size=(2, 1000)).astype(np.float32)


def assert_close(ours, theirs):
    theirs = theirs.detach().numpy()
    assert ours.shape == theirs.shape
    assert np.abs(theirs).max() > 0.1
    np.testing.assert_allclose(ours, theirs, atol=1e-4 * max(1, np.abs(theirs).max()), rtol=0)


def test_a_fine_tuned_base_gives_the_logits_of_transformers(tmp_path):
    state = finetuned_file(tmp_path / "model.pt", "base", "args")
    reference = transformers.Wav2Vec2ForCTC(their_config(transformers.Wav2Vec2Config, "base", vocab_size=32)).eval()
    reference.load_state_dict(as_transformers(state, "wav2vec2.", "base"))
    logits = from_pretrained(tmp_path / "model.pt")(list(waveforms()))
    assert_close(logits, reference(torch.tensor(waveforms())).logits)


def test_a_pretrained_lv60_gives_the_projections_of_transformers(tmp_path):
    state = pretrained_file(tmp_path / "model.pt", "lv60")
    config = their_config(transformers.Wav2Vec2Config, "lv60", do_stable_layer_norm=True)
    reference = transformers.Wav2Vec2ForPreTraining(config).eval()
    reference.load_state_dict(as_transformers(state, "wav2vec2.", "lv60"))
    network = from_pretrained(tmp_path / "model.pt")

    waveform = waveforms()
    frames = network.card.model.encoder.num_frames(1000)
    masked = np.random.default_rng(4).random((2, frames)) < 0.5
    expected = reference(torch.tensor(waveform), mask_time_indices=torch.tensor(masked))
    every_frame = jnp.broadcast_to(jnp.arange(frames), masked.shape)
    noise = jnp.zeros((*masked.shape, CODEBOOKS, ENTRIES))
    arguments = (waveform, np.full(2, 1000), masked, every_frame, noise, 1.0)
    output = jax.jit(network.card.model.apply)({"params": network.params}, *arguments)
    assert_close(output.context, expected.projected_states)
    assert_close(output.quantized, expected.projected_quantized_states)


@pytest.mark.parametrize("kind, positions", [("rel_pos", "relative"), ("rope", "rotary")])
def test_a_conformer_gives_the_context_of_transformers(tmp_path, kind, positions):
    state = pretrained_file(tmp_path / "model.pt", kind)
    settings = {"position_embeddings_type": positions, "conv_depthwise_kernel_size": WIDTH, "hidden_act": "swish"}
    config = their_config(transformers.Wav2Vec2ConformerConfig, kind, **settings)
    reference = transformers.Wav2Vec2ConformerModel(config).eval()
    theirs = as_transformers(state, "", kind)
    heads = ("quantizer", "project_")
    missing, unexpected = reference.load_state_dict(theirs, strict=False)
    assert all(name.startswith(heads) or name.endswith("rotary_emb.inv_freq") for name in unexpected)
    assert [name for name in missing if name != "encoder.embed_positions.inv_freq"] == []
    encoded = from_pretrained(tmp_path / "model.pt")(list(waveforms()))
    assert_close(encoded.context, reference(torch.tensor(waveforms())).last_hidden_state)


# Dictionaries.


@pytest.fixture
def dictionary(monkeypatch):
    """fairseq's class, there while a file is written and gone when it is read."""
    for name in ("fairseq", "fairseq.data", "fairseq.data.dictionary"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))

    class Dictionary:
        def __init__(self, symbols):
            self.symbols, self.count = list(symbols), [1] * len(symbols)
            self.indices = {symbol: index for index, symbol in enumerate(symbols)}
            self.bos_index, self.pad_index, self.eos_index, self.unk_index = range(4)

    Dictionary.__module__, Dictionary.__qualname__ = "fairseq.data.dictionary", "Dictionary"
    sys.modules["fairseq.data.dictionary"].Dictionary = Dictionary
    yield Dictionary


ABC = Vocabulary((*SPECIALS, "|", "C", "A", "B"))


@pytest.mark.parametrize("style", ["args", "cfg"])
def test_the_dictionary_in_a_file_is_taken_before_the_one_beside_it(tmp_path, dictionary, style):
    (tmp_path / "dict.ltr.txt").write_text("| 9\nX 5\nY 4\nZ 3\n")
    task_state = {"target_dictionary": dictionary(ABC.symbols)}
    finetuned_file(tmp_path / "model.pt", style=style, num_labels=8, task_state=task_state)
    assert from_pretrained(tmp_path / "model.pt").card.vocabulary == ABC


def test_the_dictionary_beside_a_file_is_taken(tmp_path):
    (tmp_path / "dict.ltr.txt").write_text("| 94802\nC 51860\nA 38431\nB 33152\n")
    finetuned_file(tmp_path / "model.pt", num_labels=8, task_state={})
    assert from_pretrained(tmp_path / "model.pt").card.vocabulary == ABC


def test_letters_are_taken_with_a_warning_where_there_is_no_dictionary(tmp_path, caplog):
    finetuned_file(tmp_path / "model.pt", num_labels=32)
    with caplog.at_level(logging.WARNING):
        assert from_pretrained(tmp_path / "model.pt").card.vocabulary == LETTERS
    [warning] = [record.getMessage() for record in caplog.records if record.name.startswith("w2v2_jax")]
    assert "no dictionary" in warning and "model.pt" in warning and "\n" not in warning


def refusal(path):
    with pytest.raises(FormatError) as error:
        from_pretrained(path)
    message = str(error.value)
    assert str(path) in message and "\n" not in message
    return message


def test_a_head_of_other_sizes_needs_its_dictionary(tmp_path):
    finetuned_file(tmp_path / "model.pt", num_labels=33)
    message = refusal(tmp_path / "model.pt")
    assert "33 outputs and no dictionary" in message and "put dict.ltr.txt beside it" in message


def test_a_dictionary_of_another_size_is_refused(tmp_path):
    (tmp_path / "dict.ltr.txt").write_text("| 9\nC 5\nA 4\nB 3\n")
    finetuned_file(tmp_path / "model.pt", num_labels=9)
    message = refusal(tmp_path / "model.pt")
    assert "8 symbols" in message and "9 outputs" in message


@pytest.mark.parametrize("where", ["task", "model"])
def test_normalisation_is_told_by_the_task_or_by_the_model(tmp_path, where):
    finetuned_file(tmp_path / "model.pt")
    content = torch.load(tmp_path / "model.pt", weights_only=True)
    content["cfg"]["task"] = {"_name": "audio_finetuning"} | ({"normalize": True} if where == "task" else {})
    content["cfg"]["model"] |= {"normalize": True} if where == "model" else {}
    torch.save(content, tmp_path / "model.pt")
    assert from_pretrained(tmp_path / "model.pt").card.normalise


def test_a_fine_tuned_file_without_settings_of_pretraining_or_head_is_refused(tmp_path):
    finetuned_file(tmp_path / "model.pt")
    content = torch.load(tmp_path / "model.pt", weights_only=True)
    torch.save(content | {"cfg": content["cfg"] | {"model": {"_name": "wav2vec_ctc"}}}, tmp_path / "bare.pt")
    assert "no w2v_args" in refusal(tmp_path / "bare.pt")
    del content["model"]["w2v_encoder.proj.weight"]
    torch.save(content, tmp_path / "headless.pt")
    assert "w2v_encoder.proj.weight" in refusal(tmp_path / "headless.pt")


# What we write.

CARDS = {
    **{f"{kind} pretraining": pretraining_card(kind, normalise=kind != "base") for kind in ("base", "rel_pos")},
    **{f"{kind} CTC": ctc_card(kind, normalise=kind != "base", vocabulary=ABC) for kind in ("base", "lv60", "rope")},
}


def assert_bit_equal(params, expected):
    jax.tree.map(np.testing.assert_array_equal, params, expected)


@pytest.fixture(scope="module")
def file_of(tmp_path_factory):
    """Files that we wrote of the networks above, each in a folder of its own."""

    @functools.cache
    def file_of(name):
        path = tmp_path_factory.mktemp("written") / "model.pt"
        save_pretrained(Pretrained(CARDS[name], random_params(CARDS[name].model)), path, "fairseq")
        return path

    return file_of


@pytest.mark.parametrize("name", CARDS)
def test_fairseq_and_back_is_the_same_network(file_of, name):
    again = from_pretrained(file_of(name))
    assert_same(again.card, CARDS[name])
    assert_bit_equal(again.params, random_params(CARDS[name].model))


@pytest.mark.parametrize("name", CARDS)
def test_a_file_of_ours_has_just_the_tensors_of_fairseq(file_of, name):
    kind, head = name.split()
    tensors = torch.load(file_of(name), weights_only=True)["model"]
    expected = pretraining_shapes(kind) if head == "pretraining" else finetuned_shapes(kind, len(ABC))
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == expected
    for name, tensor in tensors.items():
        assert tensor.dtype == (torch.int64 if name.endswith("num_batches_tracked") else torch.float32), name
        if name.endswith("inv_freq"):
            np.testing.assert_allclose(tensor, 10000.0 ** (-np.arange(0, 8, 2) / 8), rtol=1e-6)


def test_a_file_of_ours_has_what_fairseq_looks_at(file_of):
    """Its loader takes the last of the optimizer history and puts the caller's `data` over that of both tasks."""
    content = torch.load(file_of("lv60 CTC"), weights_only=True)
    assert content["args"] is None
    assert content["optimizer_history"][-1].keys() >= {"optimizer_name", "lr_scheduler_state", "num_updates"}
    assert content["extra_state"] == {} and content["task_state"] == {}
    cfg = content["cfg"]
    assert cfg["task"] == {"_name": "audio_finetuning", "data": "", "normalize": True, "labels": "ltr"}
    assert cfg["model"].items() >= ({"_name": "wav2vec_ctc", "w2v_path": "", "normalize": True} | TUNING).items()
    inner = cfg["model"]["w2v_args"]
    assert inner["task"] == {"_name": "audio_pretraining", "data": "", "normalize": True}
    sizes = {name: value for name, value in SIZES.items() if not name.startswith(("latent", "final", "conv_feature"))}
    sizes |= {"depthwise_conv_kernel_size": 31}
    assert inner["model"].items() >= ({"_name": "wav2vec2"} | sizes | KINDS["lv60"]).items()
    assert inner["model"]["conv_feature_layers"] == "[(8, 10, 5), (8, 3, 2), (8, 2, 2)]"
    assert file_of("lv60 CTC").with_name("dict.ltr.txt").read_text() == "| 1\nC 1\nA 1\nB 1\n"


def test_a_second_file_of_the_same_network_is_the_same(file_of):
    first, card = file_of("base CTC"), CARDS["base CTC"]
    save_pretrained(Pretrained(card, random_params(card.model)), first.with_name("second.pt"), "fairseq")
    assert first.with_name("second.pt").read_bytes() == first.read_bytes()


def write_refusal(card, path, error=FormatError):
    with pytest.raises(error) as raised:
        save_pretrained(Pretrained(card, random_params(card.model)), path, "fairseq")
    assert not path.exists() and "\n" not in str(raised.value)
    return str(raised.value)


def test_a_dictionary_beside_is_kept_if_it_has_the_same_symbols(tmp_path):
    (tmp_path / "dict.ltr.txt").write_text("| 94802\nC 51860\nA 38431\nB 33152\n")
    network = Pretrained(CARDS["base CTC"], random_params(CARDS["base CTC"].model))
    save_pretrained(network, tmp_path / "model.pt", "fairseq")
    assert (tmp_path / "dict.ltr.txt").read_text().startswith("| 94802")
    assert from_pretrained(tmp_path / "model.pt").card.vocabulary == ABC


def test_a_dictionary_of_others_beside_is_never_overwritten(tmp_path):
    (tmp_path / "dict.ltr.txt").write_text("| 3\nA 2\nB 1\nC 1\n")
    assert "dict.ltr.txt" in write_refusal(CARDS["base CTC"], tmp_path / "model.pt", FileExistsError)
    assert (tmp_path / "dict.ltr.txt").read_text() == "| 3\nA 2\nB 1\nC 1\n"


def test_a_network_of_pretraining_has_no_dictionary(file_of):
    assert [each.name for each in file_of("base pretraining").parent.iterdir()] == ["model.pt"]


def test_a_vocabulary_whose_blank_is_not_the_first_is_refused(tmp_path):
    card = ctc_card("base", vocabulary=Vocabulary(("|", "A", "B", "C", *SPECIALS)))
    assert "the blank" in write_refusal(card, tmp_path / "model.pt")


def test_a_classifier_is_refused(tmp_path):
    card = Card(SequenceClassifier(CARDS["base CTC"].model.encoder, 2), False, classes=("a", "b"))
    assert "no place for" in write_refusal(card, tmp_path / "model.pt")


def test_a_network_without_a_head_is_refused(tmp_path):
    assert "EncoderModel" in write_refusal(
        Card(EncoderModel(CARDS["base CTC"].model.encoder), False), tmp_path / "model.pt"
    )


def test_a_name_without_the_suffix_is_refused(tmp_path):
    assert ".pt" in write_refusal(CARDS["base pretraining"], tmp_path / "model")


def test_an_existing_file_is_not_overwritten(tmp_path):
    (tmp_path / "model.pt").write_bytes(b"old")
    with pytest.raises(FileExistsError, match=r"model\.pt exists"):
        save_pretrained(Pretrained(CARDS["base CTC"], {}), tmp_path / "model.pt", "fairseq")
    assert (tmp_path / "model.pt").read_bytes() == b"old"


def test_a_conformer_with_another_activation_is_refused(tmp_path):
    card = CARDS["rope CTC"]
    layer = card.model.encoder.context_network.layer.clone(activation=gelu)
    context = card.model.encoder.context_network.clone(layer=layer)
    encoder = card.model.encoder.clone(context_network=context)
    refused = Card(CTCModel(encoder, len(ABC)), False, ABC)
    assert "gelu" in write_refusal(refused, tmp_path / "model.pt")


def test_a_conformer_that_ignores_positions_is_refused(tmp_path):
    """fairseq's conformers with absolute positions add the convolution's."""
    encoder = pretraining_card("abs").model.encoder
    context = encoder.context_network.clone(position=CarriedPositionalConv(TAPS, GROUPS))
    refused = Card(CTCModel(encoder.clone(context_network=context), len(ABC)), False, ABC)
    assert "CarriedPositionalConv" in write_refusal(refused, tmp_path / "model.pt")


def test_transformers_to_fairseq_and_back_is_bit_equal(tmp_path):
    torch.manual_seed(1)
    original = transformers.Wav2Vec2ForPreTraining(their_config(transformers.Wav2Vec2Config, "base"))
    original.save_pretrained(tmp_path / "theirs")
    save_pretrained(from_pretrained(tmp_path / "theirs"), tmp_path / "model.pt", "fairseq")
    save_pretrained(from_pretrained(tmp_path / "model.pt"), tmp_path / "again", "huggingface")
    again = transformers.Wav2Vec2ForPreTraining.from_pretrained(tmp_path / "again").state_dict()
    assert again.keys() == original.state_dict().keys()
    for part in ("quantizer.codevectors", "project_q.weight", "project_hid.weight", "wav2vec2.masked_spec_embed"):
        assert part in again
    assert all(torch.equal(again[name], tensor) for name, tensor in original.state_dict().items())
