"""fairseq's .pt files: networks pretrained or fine-tuned with CTC, with their args (to 2020) or their cfg (since).

The dictionary of a fine-tuned one is in the file or beside it, as dict.ltr.txt.
"""

import ast
import collections
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from w2v2_jax.conformer import ConformerLayer, RelativeAttention, RotaryAttention
from w2v2_jax.context_network import ContextNetwork, PreNormLayer, SelfAttention
from w2v2_jax.convert import names
from w2v2_jax.convert.card import Card, FormatError, Published, StoredTensor
from w2v2_jax.convert.rotations import rotations_of
from w2v2_jax.convert.settings import (
    GROUP_NORM,
    LAYER_NORM,
    Settings,
    conformer,
    expect,
    is_conformer,
    key_of,
    ours,
    post_norm,
    pre_norm,
    theirs,
)
from w2v2_jax.convert.torch_files import write_torch_file
from w2v2_jax.convert.vocabulary_files import letters_if_they_fit, read_dictionary, write_dictionary
from w2v2_jax.data.text import SPECIALS, Vocabulary
from w2v2_jax.feature_encoder import FeatureEncoder
from w2v2_jax.frames import ConvLayers
from w2v2_jax.masking import MaskSpans
from w2v2_jax.model import CTCModel, PretrainingModel, Wav2Vec2
from w2v2_jax.quantizer import GumbelQuantizer

DICTIONARY = "dict.ltr.txt"
FINETUNED_PREFIX = "w2v_encoder.w2v_model."

NORMS = {"default": GROUP_NORM, "layer_norm": LAYER_NORM}
ATTENTIONS = {"rel_pos": RelativeAttention, "rope": RotaryAttention, "abs": SelfAttention}

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
    "dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0, "dropout_input": 0.0, "final_dropout": 0.0,
    "layerdrop": 0.0, "feature_grad_mult": 0.0, "mask_prob": 0.5, "mask_length": 10, "mask_channel_prob": 0.0,
    "mask_channel_length": 64,
}  # fmt: skip


def is_fairseq(content: Any) -> bool:
    """Whether that is what fairseq saves."""
    return isinstance(content, dict) and "model" in content and bool(content.get("args") or content.get("cfg"))


def read(path: Path, content: Settings) -> Published:
    """The network in a file's `content`.

    Raises:
        FormatError: for another network than wav2vec 2.0, or one with settings that no published one has.
    """
    tensors = {names.newer_spelling(name): tensor for name, tensor in content["model"].items()}
    model, task = _settings(content)
    if "w2v_args" in model or any(name.startswith(FINETUNED_PREFIX) for name in tensors):
        return Published(_finetuned(path, content, model, task, tensors), tensors)
    _check_name(path, model.get("_name") or model.get("arch"), "wav2vec2")
    s = DEFAULTS | model
    _check(path, s)
    s["final_dim"] = s["final_dim"] or s["encoder_embed_dim"]
    expect(str(path), s, {"quantize_targets": (True,), "latent_dim": (0, s["final_dim"])})
    quantizer = GumbelQuantizer(**ours(QUANTIZER, s))
    network = PretrainingModel(_encoder(path, s), quantizer, feature_dropout=s["dropout_features"])
    return Published(Card(network, bool(task.get("normalize", False)), **_masks(s)), tensors)


def _finetuned(path: Path, content: Settings, model: Settings, task: Settings, tensors: Mapping[str, Any]) -> Card:
    _check_name(path, model.get("_name") or model.get("arch"), "wav2vec_ctc")
    if not model.get("w2v_args"):
        raise FormatError(f"{path} doesn't say of what kind it is: it has no w2v_args; save it with fairseq again")
    pretrained = _plain(model["w2v_args"])
    pretrained = _plain(pretrained.get("model") or pretrained)
    tuning = FINETUNING_DEFAULTS | {name: value for name, value in model.items() if name in FINETUNING_DEFAULTS}
    s = DEFAULTS | pretrained | tuning | {"encoder_layerdrop": tuning["layerdrop"]}
    _check(path, s)
    head = tensors.get(f"{names.FAIRSEQ_HEADS['head']}.weight")
    if head is None:
        raise FormatError(f"{path} has no CTC head {names.FAIRSEQ_HEADS['head']}.weight, as wav2vec_ctc has")
    vocabulary = _vocabulary(path, content, head.shape[0])
    network = CTCModel(_encoder(path, s), head.shape[0], output_dropout=s["final_dropout"])
    normalise = task.get("normalize", model.get("normalize", False))
    return Card(network, bool(normalise), vocabulary, **_masks(s))


def _settings(content: Settings) -> tuple[Settings, Settings]:
    """The settings of model and task; in the time of args they stand together."""
    if content.get("cfg"):
        cfg = _plain(content["cfg"])
        return _plain(cfg["model"]), _plain(cfg.get("task"))
    return _plain(content["args"]), _plain(content["args"])


def _plain(settings: Any) -> Settings:
    return dict(settings) if isinstance(settings, Mapping) else {}


def _check_name(path: Path, name: str | None, wanted: str) -> None:
    if name != wanted:
        raise FormatError(f"{path} is a checkpoint of {name!r}; accepted are fairseq's wav2vec2 and wav2vec_ctc")


def _check(path: Path, s: Settings) -> None:
    conformer = s["layer_type"] == "conformer"
    wanted = {
        "extractor_mode": tuple(NORMS),
        "conv_bias": (s["extractor_mode"] == "layer_norm",),
        "layer_type": ("transformer", "conformer"),
        "activation_fn": (s["activation_fn"],) if conformer else ("gelu",),
        "pos_enc_type": tuple(ATTENTIONS) if conformer else (s["pos_enc_type"],),
        "quantize_input": (False,),
        "target_glu": (False,),
        "quantizer_depth": (1,),
        "pos_conv_depth": (1,),
        "conv_pos_batch_norm": (False,),
    }
    expect(str(path), s, wanted)


def _encoder(path: Path, s: Settings) -> Wav2Vec2:
    features = FeatureEncoder(_conv_layers(path, s["conv_feature_layers"]), *NORMS[s["extractor_mode"]])
    return Wav2Vec2(features, _context_network(s), **ours(ENCODER, s))


def _context_network(s: Settings) -> ContextNetwork:
    network, position = ours(NETWORK, s), ours(POSITION, s)
    if s["layer_type"] == "conformer":
        layer = ConformerLayer(attention=ATTENTIONS[s["pos_enc_type"]], **ours(CONFORMER_LAYER, s))
        return conformer(layer, position, network)
    if s["layer_norm_first"]:
        return pre_norm(PreNormLayer(**ours(LAYER, s)), position, network)
    return post_norm(ours(LAYER, s), position, network)


def _conv_layers(path: Path, text: str) -> ConvLayers:
    """Layers written as "[(512, 10, 5)] + [(512, 3, 2)] * 4", which fairseq evaluates as Python; here only that."""

    def value(node: ast.expr) -> Any:
        match node:
            case ast.BinOp(left, ast.Add(), right):
                return value(left) + value(right)
            case ast.BinOp(left, ast.Mult(), right):
                return value(left) * value(right)
            case _:
                return ast.literal_eval(node)

    try:
        return tuple((dim, width, stride) for dim, width, stride in value(ast.parse(text.strip(), mode="eval").body))
    except (SyntaxError, ValueError, TypeError) as error:
        raise FormatError(
            f"{path} has conv_feature_layers={text!r}; accepted are lists of (dim, width, stride)"
        ) from error


def _vocabulary(path: Path, content: Settings, num_labels: int) -> Vocabulary:
    beside = path.parent / DICTIONARY
    state = _plain(_plain(content.get("task_state")).get("target_dictionary"))
    if state:
        vocabulary = Vocabulary(tuple(state["symbols"]))
    elif beside.exists():
        vocabulary = read_dictionary(beside)
    else:
        vocabulary = letters_if_they_fit(num_labels)
        if vocabulary is None:
            raise FormatError(f"{path} has {num_labels} outputs and no dictionary; put {DICTIONARY} beside it")
        logging.getLogger(__name__).warning(
            "%s has no dictionary in it or beside it (%s); taken are fairseq's letters of LibriSpeech, which fit",
            path, DICTIONARY,
        )  # fmt: skip
    if len(vocabulary) != num_labels:
        raise FormatError(
            f"the dictionary of {path} has {len(vocabulary)} symbols, {', '.join(SPECIALS)} among them, its head has "
            f"{num_labels} outputs; give the {DICTIONARY} that it was trained with"
        )
    return vocabulary


def _masks(s: Settings) -> dict[str, MaskSpans]:
    return {
        "time_mask": MaskSpans(**ours(TIME_MASK, s), min_spans=MIN_SPANS),
        "channel_mask": MaskSpans(**ours(CHANNEL_MASK, s), min_spans=0),
    }


def names_of(card: Card) -> names.Names:
    """How fairseq calls the parameters of a network."""
    layer = names.FAIRSEQ_CONFORMER if is_conformer(card.model) else names.FAIRSEQ_TRANSFORMER
    norm = names.FAIRSEQ_GROUP_NORM if _norm(card) == "default" else {}
    return names.with_prefix(names.FAIRSEQ_ENCODER | norm | layer, _prefix(card), names.FAIRSEQ_HEADS)


def _norm(card: Card) -> str:
    features = card.model.encoder.feature_encoder
    return key_of(NORMS, (features.first, features.rest), "fairseq")


def _prefix(card: Card) -> str:
    return FINETUNED_PREFIX if isinstance(card.model, CTCModel) else ""


def derived_of(card: Card) -> dict[str, np.ndarray]:
    """Tensors that fairseq keeps although they follow from the configuration."""
    name = _prefix(card) + names.FAIRSEQ_ROTATIONS
    return {name.format(layer=layer): each for layer, each in enumerate(rotations_of(card.model))}


def write(card: Card, tensors: Mapping[str, StoredTensor], path: Path) -> None:
    """Writes a .pt file that fairseq loads (in the form with cfg) and, of a CTC model, dict.ltr.txt beside it.

    Raises:
        FormatError: for a network or a vocabulary that fairseq cannot express.
    """
    if path.suffix != ".pt":
        raise FormatError(f"fairseq keeps a network in a file: {path} should end in .pt")
    if not isinstance(card.model, PretrainingModel | CTCModel):
        raise FormatError(f"fairseq has no {type(card.model).__name__}; convert to huggingface")
    content = {
        "args": None,
        "cfg": _cfg(card),
        "model": collections.OrderedDict((names.older_spelling(name), each) for name, each in tensors.items()),
        "criterion": None,
        "optimizer_history": [],
        "task_state": {},
        "extra_state": {},
        "last_optimizer_state": None,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(card.model, CTCModel):
        write_dictionary(card.vocabulary, path.parent / DICTIONARY)
    write_torch_file(path, content)


def _cfg(card: Card) -> Settings:
    encoder = card.model.encoder
    network, features = encoder.context_network, encoder.feature_encoder
    layer = network.layer
    convolved = is_conformer(card.model)
    model = {
        "_name": "wav2vec2",
        **DEFAULTS,
        "quantize_targets": True,
        "extractor_mode": _norm(card),
        "conv_bias": _norm(card) == "layer_norm",
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
        model |= {"attn_type": "espnet", "pos_enc_type": key_of(ATTENTIONS, layer.attention, "fairseq")}
    if isinstance(card.model, PretrainingModel):
        model |= theirs(QUANTIZER, card.model.quantizer) | {"dropout_features": card.model.feature_dropout}
        return {"task": {"_name": "audio_pretraining", "normalize": card.normalise}, "model": model}
    tuned = {name: model[name] for name in FINETUNING_DEFAULTS if name in model}
    tuned |= {"final_dropout": card.model.output_dropout, "layerdrop": model["encoder_layerdrop"]}
    task = {"_name": "audio_finetuning", "normalize": card.normalise, "labels": "ltr"}
    pretrained = {"task": {"_name": "audio_pretraining", "normalize": card.normalise}, "model": model}
    return {
        "task": task,
        "model": {"_name": "wav2vec_ctc", "w2v_path": "", "normalize": card.normalise, "w2v_args": pretrained, **tuned},
    }
