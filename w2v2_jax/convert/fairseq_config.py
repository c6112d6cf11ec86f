"""fairseq's settings and our modules: each under both names."""

import ast
from pathlib import Path
from typing import Any

from w2v2_jax.conformer import CarriedPositionalConv, ConformerLayer, RelativeAttention, RotaryAttention
from w2v2_jax.context_network import ContextNetwork, PositionalConv, PreNormLayer, SelfAttention
from w2v2_jax.convert.card import Card, FormatError
from w2v2_jax.convert.settings import (
    GROUP_NORM,
    LAYER_NORM,
    Settings,
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
from w2v2_jax.feature_encoder import FeatureEncoder
from w2v2_jax.frames import ConvLayers
from w2v2_jax.layers import swish
from w2v2_jax.masking import MaskSpans
from w2v2_jax.model import CTCModel, PretrainingModel, Wav2Vec2
from w2v2_jax.quantizer import GumbelQuantizer

NORMS = {"default": GROUP_NORM, "layer_norm": LAYER_NORM}
POSITIONS = {
    "rel_pos": (RelativeAttention, CarriedPositionalConv),
    "rope": (RotaryAttention, CarriedPositionalConv),
    "abs": (SelfAttention, PositionalConv),
}
"""How a conformer knows positions; only where its attention doesn't tell them does the convolution."""
CONFORMER_ACTIVATIONS = {"swish": swish}
"""In fairseq's code, not among the settings."""

LAYER = {
    "num_heads": "encoder_attention_heads",
    "ffn_dim": "encoder_ffn_embed_dim",
    "dropout": "dropout",
    "attention_dropout": "attention_dropout",
    "activation_dropout": "activation_dropout",
}
CONFORMER_LAYER = LAYER | {"width": "depthwise_conv_kernel_size", "convolution_dropout": "dropout"}
NETWORK = {"num_layers": "encoder_layers", "dropout": "dropout", "layer_drop": "encoder_layerdrop"}
POSITION = {"width": "conv_pos", "num_groups": "conv_pos_groups"}
ENCODER = {
    "embed_dim": "encoder_embed_dim",
    "input_dropout": "dropout_input",
    "feature_gradient_scale": "feature_grad_mult",
}
QUANTIZER = {"dim": "final_dim", "num_groups": "latent_groups", "num_entries": "latent_vars"}
TIME_MASK = {"prob": "mask_prob", "length": "mask_length"}
CHANNEL_MASK = {"prob": "mask_channel_prob", "length": "mask_channel_length"}
MIN_SPANS = 2
"""In time; fairseq has it in the code, not among the settings."""

# What fairseq takes where a file's settings are silent.
DEFAULTS: Settings = {
    "extractor_mode": "default", "encoder_layers": 12, "encoder_embed_dim": 768, "encoder_ffn_embed_dim": 3072,
    "encoder_attention_heads": 12, "activation_fn": "gelu", "layer_type": "transformer", "dropout": 0.1,
    "attention_dropout": 0.1, "activation_dropout": 0.0, "encoder_layerdrop": 0.0, "dropout_input": 0.0,
    "dropout_features": 0.0, "final_dim": 0, "layer_norm_first": False,
    "conv_feature_layers": "[(512, 10, 5)] + [(512, 3, 2)] * 4 + [(512,2,2)] + [(512,2,2)]", "conv_bias": False,
    "quantize_targets": False, "quantize_input": False, "target_glu": False, "feature_grad_mult": 1.0,
    "quantizer_depth": 1, "latent_vars": 320, "latent_groups": 2, "latent_dim": 0, "mask_prob": 0.65,
    "mask_length": 10, "mask_channel_prob": 0.0, "mask_channel_length": 10, "conv_pos": 128, "conv_pos_groups": 16,
    "pos_conv_depth": 1, "conv_pos_batch_norm": False, "depthwise_conv_kernel_size": 31, "attn_type": "",
    "pos_enc_type": "abs",
}  # fmt: skip
FINETUNING_DEFAULTS: Settings = {
    "apply_mask": False, "dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0, "dropout_input": 0.0,
    "final_dropout": 0.0, "layerdrop": 0.0, "feature_grad_mult": 0.0, "mask_prob": 0.5, "mask_length": 10,
    "mask_channel_prob": 0.0, "mask_channel_length": 64,
}  # fmt: skip


def pretraining_model(path: Path, settings: Settings) -> PretrainingModel:
    """The network that `wav2vec2` is with these settings.

    Raises:
        FormatError: for a setting that no published network has.
    """
    s = _checked(path, settings)
    s["final_dim"] = s["final_dim"] or s["encoder_embed_dim"]
    expect(str(path), s, {"quantize_targets": (True,), "latent_dim": (0, s["final_dim"])})
    quantizer = GumbelQuantizer(**ours(QUANTIZER, s))
    return PretrainingModel(_encoder(path, s), quantizer, feature_dropout=s["dropout_features"])


def ctc_model(path: Path, pretraining: Settings, finetuning: Settings, num_labels: int) -> CTCModel:
    """The network that `wav2vec_ctc` is, with sizes from pretraining and all that regularises from fine-tuning.

    Raises:
        FormatError: for a setting that no published network has.
    """
    tuning = tuning_of(finetuning)
    s = _checked(path, pretraining | tuning | {"encoder_layerdrop": tuning["layerdrop"]})
    return CTCModel(_encoder(path, s), num_labels, output_dropout=s["final_dropout"])


def tuning_of(finetuning: Settings) -> Settings:
    """Those of the settings of fine-tuning that are known here, or their defaults."""
    return FINETUNING_DEFAULTS | {name: value for name, value in finetuning.items() if name in FINETUNING_DEFAULTS}


def _checked(path: Path, settings: Settings) -> Settings:
    s = DEFAULTS | settings
    check_kinds(str(path), s, DEFAULTS)
    convolved = s["layer_type"] == "conformer"
    wanted = {
        "extractor_mode": tuple(NORMS),
        "conv_bias": (s["extractor_mode"] == "layer_norm",),
        "layer_type": ("transformer", "conformer"),
        "activation_fn": (s["activation_fn"],) if convolved else ("gelu",),
        "layer_norm_first": (True,) if convolved else (True, False),
        "attn_type": ("espnet",) if convolved else (s["attn_type"],),
        "pos_enc_type": tuple(POSITIONS) if convolved else (s["pos_enc_type"],),
        "quantize_input": (False,),
        "target_glu": (False,),
        "quantizer_depth": (1,),
        "pos_conv_depth": (1,),
        "conv_pos_batch_norm": (False,),
    }
    expect(str(path), s, wanted)
    return s


def _encoder(path: Path, s: Settings) -> Wav2Vec2:
    features = FeatureEncoder(_conv_layers(path, s["conv_feature_layers"]), *NORMS[s["extractor_mode"]])
    return Wav2Vec2(features, _context_network(s), **ours(ENCODER, s))


def _context_network(s: Settings) -> ContextNetwork:
    network, position = ours(NETWORK, s), ours(POSITION, s)
    if s["layer_type"] == "conformer":
        attention, convolution = POSITIONS[s["pos_enc_type"]]
        layer = ConformerLayer(attention=attention, **ours(CONFORMER_LAYER, s))
        return conformer(layer, position, network, convolution)
    if s["layer_norm_first"]:
        return pre_norm(PreNormLayer(**ours(LAYER, s)), position, network)
    return post_norm(ours(LAYER, s), position, network)


MAX_REPEATS = 100
"""Of one convolution in the text of `conv_feature_layers`; a file must not fill the memory."""


def _conv_layers(path: Path, text: str) -> ConvLayers:
    """Layers written as "[(512, 10, 5)] + [(512, 3, 2)] * 4", which fairseq evaluates as Python; here only that."""

    def value(node: ast.expr) -> Any:
        match node:
            case ast.BinOp(left, ast.Add(), right):
                return value(left) + value(right)
            case ast.BinOp(left, ast.Mult(), right):
                factors = (value(left), value(right))
                if max(len(each) if isinstance(each, list) else each for each in factors) > MAX_REPEATS:
                    raise ValueError(f"repeated more than {MAX_REPEATS} times")
                return factors[0] * factors[1]
            case _:
                return ast.literal_eval(node)

    try:
        layers = value(ast.parse(text.strip(), mode="eval").body)
        return tuple((int(dim), int(width), int(stride)) for dim, width, stride in layers)
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError) as error:
        raise FormatError(
            f"{path} has conv_feature_layers={text!r}; accepted are lists of (dim, width, stride)"
        ) from error


def masks_of(settings: Settings) -> dict[str, MaskSpans]:
    """The masks over time and over channels that training uses, if it uses any."""
    s = DEFAULTS | settings
    return {
        "time_mask": MaskSpans(**ours(TIME_MASK, s), min_spans=MIN_SPANS),
        "channel_mask": MaskSpans(**ours(CHANNEL_MASK, s), min_spans=0),
    }


def extractor_mode(card: Card) -> str:
    """What fairseq calls the norms of a network's feature encoder."""
    features = card.model.encoder.feature_encoder
    return key_of(NORMS, (features.first, features.rest), "fairseq")


def cfg_of(card: Card) -> Settings:
    """The cfg from which fairseq makes the same network.

    Raises:
        FormatError: for a network that fairseq cannot express.
    """
    encoder = card.model.encoder
    network, features = encoder.context_network, encoder.feature_encoder
    layer = network.layer
    convolved = is_conformer(card.model)
    model = {
        "_name": "wav2vec2",
        **DEFAULTS,
        "quantize_targets": True,
        "extractor_mode": extractor_mode(card),
        "conv_bias": extractor_mode(card) == "layer_norm",
        "conv_feature_layers": str([tuple(each) for each in features.layers]),
        "layer_type": "conformer" if convolved else "transformer",
        "layer_norm_first": isinstance(layer, PreNormLayer) or convolved,
        **theirs(ENCODER, encoder),
        **theirs(NETWORK, network),
        **theirs(POSITION, network.position),
        **theirs(CONFORMER_LAYER if convolved else LAYER, layer),
        **theirs(TIME_MASK, card.time_mask),
        **theirs(CHANNEL_MASK, card.channel_mask),
    }
    if convolved:
        key_of(CONFORMER_ACTIVATIONS, layer.activation, "fairseq's conformer")
        position = key_of(POSITIONS, (layer.attention, type(network.position)), "fairseq's conformer")
        model |= {"attn_type": "espnet", "pos_enc_type": position}
    if isinstance(card.model, PretrainingModel):
        model |= theirs(QUANTIZER, card.model.quantizer) | {"dropout_features": card.model.feature_dropout}
        return {"task": _task(card, "audio_pretraining"), "model": model}
    tuned = {name: model[name] for name in FINETUNING_DEFAULTS if name in model}
    tuned |= {"final_dropout": card.model.output_dropout, "layerdrop": model["encoder_layerdrop"]}
    tuned |= {"apply_mask": card.time_mask.prob > 0 or card.channel_mask.prob > 0}
    pretrained = {"task": _task(card, "audio_pretraining"), "model": model}
    return {
        "task": _task(card, "audio_finetuning") | {"labels": "ltr"},
        "model": {"_name": "wav2vec_ctc", "w2v_path": "", "normalize": card.normalise, "w2v_args": pretrained, **tuned},
    }


def _task(card: Card, name: str) -> Settings:
    """fairseq puts the folder of its data over `data`, which must be there for that."""
    return {"_name": name, "data": "", "normalize": card.normalise}
