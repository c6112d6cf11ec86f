"""transformers' config.json and our modules: each setting under both names."""

import re
from typing import Any

import flax.linen as nn

from w2v2_jax.conformer import LONGEST_WAVE, CarriedPositionalConv, ConformerLayer, RelativeAttention, RotaryAttention
from w2v2_jax.context_network import AdaptedPreNormLayer, ContextNetwork, PreNormLayer, SelfAttention
from w2v2_jax.convert.card import Card, FormatError
from w2v2_jax.convert.settings import (
    GROUP_NORM,
    LAYER_NORM,
    check_kinds,
    conformer,
    expect,
    is_conformer,
    key_of,
    ours,
    post_norm,
    pre_norm,
    theirs,
)
from w2v2_jax.description import changes, describe
from w2v2_jax.feature_encoder import FeatureEncoder
from w2v2_jax.heads import FrameClassifier, LastContext, SequenceClassifier, WeightedLayers, XVectorModel
from w2v2_jax.layers import NORM_EPS, gelu, swish
from w2v2_jax.masking import MaskSpans
from w2v2_jax.model import CTCModel, EncoderModel, PretrainingModel, Wav2Vec2
from w2v2_jax.quantizer import GumbelQuantizer

Json = dict[str, Any]

TRANSFORMER, CONFORMER = "wav2vec2", "wav2vec2-conformer"
CLASS_PREFIX = {TRANSFORMER: "Wav2Vec2", CONFORMER: "Wav2Vec2Conformer"}
HEADS = {
    "Model": EncoderModel,
    "ForPreTraining": PretrainingModel,
    "ForCTC": CTCModel,
    "ForSequenceClassification": SequenceClassifier,
    "ForAudioFrameClassification": FrameClassifier,
    "ForXVector": XVectorModel,
}
NORMS = {"group": GROUP_NORM, "layer": LAYER_NORM}
ACTIVATIONS = {"gelu": gelu, "swish": swish, "silu": swish}
ATTENTIONS = {"relative": RelativeAttention, "rotary": RotaryAttention, None: SelfAttention}

LAYER = {
    "num_heads": "num_attention_heads",
    "ffn_dim": "intermediate_size",
    "dropout": "hidden_dropout",
    "attention_dropout": "attention_dropout",
    "activation_dropout": "activation_dropout",
}
CONFORMER_LAYER = LAYER | {"width": "conv_depthwise_kernel_size", "convolution_dropout": "conformer_conv_dropout"}
NETWORK = {"num_layers": "num_hidden_layers", "dropout": "hidden_dropout", "layer_drop": "layerdrop"}
POSITION = {"width": "num_conv_pos_embeddings", "num_groups": "num_conv_pos_embedding_groups"}
ENCODER = {"embed_dim": "hidden_size", "input_dropout": "feat_proj_dropout"}
QUANTIZER = {
    "dim": "codevector_dim",
    "num_groups": "num_codevector_groups",
    "num_entries": "num_codevectors_per_group",
}
TIME_MASK = {"prob": "mask_time_prob", "length": "mask_time_length", "min_spans": "mask_time_min_masks"}
CHANNEL_MASK = {"prob": "mask_feature_prob", "length": "mask_feature_length", "min_spans": "mask_feature_min_masks"}

ONLY_IN_TRAINING = r"^encoder\.(dtype|feature_gradient_scale|.*(dropout|remat_policy|unroll)):"
"""Settings that a config.json has no place for, and the network is the same without."""

TWO_CLASSES = {"0": "LABEL_0", "1": "LABEL_1"}
"""What transformers leaves out of a config.json."""

# What transformers takes where a config.json is silent.
DEFAULTS: Json = {
    "vocab_size": 32, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
    "intermediate_size": 3072, "hidden_act": "gelu", "hidden_dropout": 0.1, "activation_dropout": 0.1,
    "attention_dropout": 0.1, "feat_proj_dropout": 0.0, "feat_quantizer_dropout": 0.0, "final_dropout": 0.1,
    "layerdrop": 0.1, "layer_norm_eps": 1e-5, "feat_extract_norm": "group", "feat_extract_activation": "gelu",
    "conv_dim": [512] * 7, "conv_stride": [5, 2, 2, 2, 2, 2, 2], "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
    "conv_bias": False, "num_conv_pos_embeddings": 128, "num_conv_pos_embedding_groups": 16,
    "do_stable_layer_norm": False, "mask_time_prob": 0.05, "mask_time_length": 10,
    "mask_time_min_masks": 2, "mask_feature_prob": 0.0, "mask_feature_length": 10, "mask_feature_min_masks": 0,
    "num_codevectors_per_group": 320, "num_codevector_groups": 2, "codevector_dim": 256, "proj_codevector_dim": 256,
    "use_weighted_layer_sum": False, "classifier_proj_size": 256, "tdnn_dim": [512, 512, 512, 512, 1500],
    "tdnn_kernel": [5, 3, 3, 1, 1], "tdnn_dilation": [1, 2, 3, 1, 1], "xvector_output_dim": 512,
    "add_adapter": False, "adapter_attn_dim": None, "position_embeddings_type": "relative",
    "rotary_embedding_base": 10000, "conv_depthwise_kernel_size": 31, "conformer_conv_dropout": 0.1,
}  # fmt: skip


def model_of(config: Json) -> nn.Module:
    """The network that a config.json with its `architectures` describes.

    Raises:
        FormatError: for another family of networks, or a setting that no published wav2vec 2.0 has.
    """
    head = head_of(config)
    c = DEFAULTS | config
    _check(c, head)
    encoder = _encoder(c)
    if head is PretrainingModel:
        quantizer = GumbelQuantizer(**ours(QUANTIZER, c))
        return PretrainingModel(encoder, quantizer, feature_dropout=c["feat_quantizer_dropout"])
    if head is CTCModel:
        return CTCModel(encoder, c["vocab_size"], output_dropout=c["final_dropout"])
    if head is EncoderModel:
        return EncoderModel(encoder)
    summary = {"representation": WeightedLayers if c["use_weighted_layer_sum"] else LastContext}
    num_classes = len(classes_of(config))
    if head is SequenceClassifier:
        return SequenceClassifier(encoder, num_classes, c["classifier_proj_size"], **summary)
    if head is FrameClassifier:
        return FrameClassifier(encoder, num_classes, **summary)
    layers = tuple(zip(c["tdnn_dim"], c["tdnn_kernel"], c["tdnn_dilation"], strict=True))
    return XVectorModel(encoder, num_classes, layers, c["xvector_output_dim"], **summary)


def head_of(config: Json) -> type[nn.Module]:
    """The class of the network that a config.json names.

    Raises:
        FormatError: for another family of networks, or a head that is not known here.
    """
    family = config.get("model_type")
    if not isinstance(family, str) or family not in CLASS_PREFIX:
        raise FormatError(f"this is a checkpoint of {family!r}; accepted are {' and '.join(CLASS_PREFIX)}")
    if not isinstance(config.get("architectures"), list | None):
        raise FormatError(
            f"config.json has architectures={config['architectures']!r}, which should be a list of one name"
        )
    name = " and ".join(config.get("architectures") or [f"{CLASS_PREFIX[family]}Model"])
    head = name.removeprefix(CLASS_PREFIX[family])
    if head not in HEADS:
        known = ", ".join(CLASS_PREFIX[family] + each for each in HEADS)
        raise FormatError(f"this is a checkpoint of {name}; accepted are {known}")
    return HEADS[head]


def _check(c: Json, head: type[nn.Module]) -> None:
    # A conformer without a head that writes has no vocab_size: it is null.
    check_kinds("config.json", c, DEFAULTS if head is CTCModel else DEFAULTS | {"vocab_size": None})
    alike = c["feat_extract_norm"] == "layer"
    wanted = {
        "feat_extract_norm": tuple(NORMS),
        "conv_bias": (alike,),
        "feat_extract_activation": ("gelu",),
        "hidden_act": tuple(ACTIVATIONS) if c["model_type"] == CONFORMER else ("gelu",),
        "layer_norm_eps": (NORM_EPS,),
        "add_adapter": (False,),
        "proj_codevector_dim": (c["codevector_dim"],),
        "position_embeddings_type": tuple(ATTENTIONS),
        "rotary_embedding_base": (LONGEST_WAVE,),
        "adapter_attn_dim": (c["adapter_attn_dim"] if c["do_stable_layer_norm"] else None,),
    }
    expect("config.json", c, wanted)
    counts = {name: len(c[name]) for name in ("conv_dim", "conv_kernel", "conv_stride")}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{count} of {name}" for name, count in counts.items())
        raise FormatError(f"config.json has {listed}; give one of each for every convolution")


def _encoder(c: Json) -> Wav2Vec2:
    layers = tuple(zip(c["conv_dim"], c["conv_kernel"], c["conv_stride"], strict=True))
    features = FeatureEncoder(layers, *NORMS[c["feat_extract_norm"]])
    return Wav2Vec2(features, _context_network(c), **ours(ENCODER, c))


def _context_network(c: Json) -> ContextNetwork:
    network, position = ours(NETWORK, c), ours(POSITION, c)
    if c["model_type"] == CONFORMER:
        attention, activation = ATTENTIONS[c["position_embeddings_type"]], ACTIVATIONS[c["hidden_act"]]
        layer = ConformerLayer(attention=attention, activation=activation, **ours(CONFORMER_LAYER, c))
        return conformer(layer, position, network)
    if not c["do_stable_layer_norm"]:
        return post_norm(ours(LAYER, c), position, network)
    if c["adapter_attn_dim"]:
        return pre_norm(AdaptedPreNormLayer(**ours(LAYER, c), adapter_dim=c["adapter_attn_dim"]), position, network)
    return pre_norm(PreNormLayer(**ours(LAYER, c)), position, network)


def classes_of(config: Json) -> tuple[str, ...]:
    """The names of a classifier's outputs."""
    labels = {int(number): name for number, name in config.get("id2label", TWO_CLASSES).items()}
    return tuple(labels[number] for number in sorted(labels))


def masks_of(config: Json) -> tuple[MaskSpans, MaskSpans]:
    """The masks over time and over channels that training uses."""
    c = DEFAULTS | config
    return MaskSpans(**ours(TIME_MASK, c)), MaskSpans(**ours(CHANNEL_MASK, c))


def config_of(card: Card) -> Json:
    """A config.json from which transformers makes the same network.

    Raises:
        FormatError: for a network that transformers cannot express.
    """
    config = _config_of(card)
    for change in changes(describe(card.model), describe(model_of(config))):
        if not re.search(ONLY_IN_TRAINING, change):
            raise FormatError(f"transformers has no such network, only with {change}; keep it as ours")
    return config


def _config_of(card: Card) -> Json:
    model, encoder = card.model, card.model.encoder
    network, features = encoder.context_network, encoder.feature_encoder
    layer = network.layer
    family = CONFORMER if is_conformer(model) else TRANSFORMER
    norm = key_of(NORMS, (features.first, features.rest), "transformers")
    dims, widths, strides = (list(each) for each in zip(*features.layers, strict=True))
    config = {
        "architectures": [CLASS_PREFIX[family] + key_of(HEADS, type(model), "transformers")],
        "model_type": family,
        "dtype": "float32",
        "feat_extract_norm": norm,
        "conv_bias": norm == "layer",
        "conv_dim": dims,
        "conv_kernel": widths,
        "conv_stride": strides,
        **theirs(ENCODER, encoder),
        **theirs(NETWORK, network),
        **theirs(POSITION, network.position),
        **theirs(CONFORMER_LAYER if family == CONFORMER else LAYER, layer),
        **theirs(TIME_MASK, card.time_mask),
        **theirs(CHANNEL_MASK, card.channel_mask),
        **_head_config(card),
    }
    if family == CONFORMER:
        if not isinstance(network.position, CarriedPositionalConv):
            raise FormatError("transformers makes no use of a positional convolution in a conformer; this network does")
        attention = key_of(ATTENTIONS, layer.attention, "transformers")
        activation = key_of(ACTIVATIONS, layer.activation, "transformers")
        return config | {"position_embeddings_type": attention, "hidden_act": activation}
    adapter = {"adapter_attn_dim": layer.adapter_dim} if isinstance(layer, AdaptedPreNormLayer) else {}
    return config | {"do_stable_layer_norm": isinstance(layer, PreNormLayer), "hidden_act": "gelu"} | adapter


def _head_config(card: Card) -> Json:
    model = card.model
    if isinstance(model, EncoderModel):
        return {}
    if isinstance(model, PretrainingModel):
        dims = theirs(QUANTIZER, model.quantizer) | {"proj_codevector_dim": model.quantizer.dim}
        return dims | {"feat_quantizer_dropout": model.feature_dropout}
    if isinstance(model, CTCModel):
        blank = card.vocabulary.blank_id
        return {"vocab_size": model.num_labels, "final_dropout": model.output_dropout, "pad_token_id": blank}
    names = {str(number): name for number, name in enumerate(card.classes)}
    config = {
        "id2label": names,
        "label2id": {name: int(number) for number, name in names.items()},
        "use_weighted_layer_sum": model.representation is WeightedLayers,
    }
    if isinstance(model, SequenceClassifier):
        return config | {"classifier_proj_size": model.projection_dim}
    if isinstance(model, XVectorModel):
        dims, widths, dilations = (list(each) for each in zip(*model.tdnn, strict=True))
        sizes = {"tdnn_dim": dims, "tdnn_kernel": widths, "tdnn_dilation": dilations}
        return config | sizes | {"xvector_output_dim": model.embedding_dim}
    return config
