"""State dicts of torchaudio: a folder of model.pt and config.json, the arguments of `wav2vec2_model`.

torchaudio has no place for the mask embedding nor for what pretraining adds; a state dict alone is taken as well, if
its sizes are those of a published network.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from w2v2_jax.context_network import PreNormLayer
from w2v2_jax.convert import names
from w2v2_jax.convert.card import Card, FormatError, Published, StoredTensor
from w2v2_jax.convert.folders import new_folder, read_json, write_json
from w2v2_jax.convert.settings import (
    GROUP_NORM,
    LAYER_NORM,
    Settings,
    expect,
    key_of,
    ours,
    post_norm,
    pre_norm,
    theirs,
)
from w2v2_jax.convert.torch_files import read_torch_file, write_torch_file
from w2v2_jax.convert.vocabulary_files import letters_if_they_fit
from w2v2_jax.data.text import LETTERS, Vocabulary
from w2v2_jax.description import build, describe
from w2v2_jax.feature_encoder import FeatureEncoder
from w2v2_jax.frames import PAPER_CONV_LAYERS
from w2v2_jax.model import CTCModel, EncoderModel, Wav2Vec2

MODEL, CONFIG, LABELS = "model.pt", "config.json", "labels.json"

NORMS = {"group_norm": GROUP_NORM, "layer_norm": LAYER_NORM}

LAYER = {
    "num_heads": "encoder_num_heads",
    "ffn_dim": "encoder_ff_interm_features",
    "dropout": "encoder_dropout",
    "attention_dropout": "encoder_attention_dropout",
    "activation_dropout": "encoder_ff_interm_dropout",
}
NETWORK = {"num_layers": "encoder_num_layers", "dropout": "encoder_dropout", "layer_drop": "encoder_layer_drop"}
POSITION = {"width": "encoder_pos_conv_kernel", "num_groups": "encoder_pos_conv_groups"}
ENCODER = {"embed_dim": "encoder_embed_dim", "input_dropout": "encoder_projection_dropout"}

ARGUMENTS = (
    "extractor_mode",
    "extractor_conv_layer_config",
    "encoder_layer_norm_first",
    "aux_num_out",
    *(name for table in (ENCODER, POSITION, NETWORK, LAYER) for name in table.values()),
)
"""Those of `wav2vec2_model` but for `extractor_conv_bias`, which follows."""

HEADS_OF_PUBLISHED = {768: 12, 1024: 16, 1280: 16, 1920: 16}
"""Attention heads by embedding size: what the sizes of a state dict cannot tell."""
SIZED = (
    "encoder.feature_projection.projection.weight",
    "encoder.transformer.pos_conv_embed.conv.parametrizations.weight.original1",
    "encoder.transformer.layers.0.feed_forward.intermediate_dense.weight",
)
"""The tensors that tell the sizes of a network."""
BUNDLE_LABELS = Vocabulary(("-", *LETTERS.symbols[4:]), specials=("-",), blank="-")
"""torchaudio's pipelines cut the three specials that CTC never writes from fairseq's letters."""


def is_torchaudio(tensors: Any) -> bool:
    """Whether that is a state dict of torchaudio's `Wav2Vec2Model`."""
    return isinstance(tensors, dict) and any(str(name).startswith("encoder.transformer.") for name in tensors)


def read_folder(folder: Path) -> Published:
    """The network of a folder that `write` wrote, or somebody after its pattern.

    Raises:
        FormatError: where config.json lacks an argument, or has one that no published network has.
    """
    config = read_json(folder / CONFIG)
    lacking = [name for name in ARGUMENTS if name not in config]
    if lacking:
        raise FormatError(f"{folder / CONFIG} lacks {lacking[0]}; give all arguments of wav2vec2_model")
    expect(str(folder / CONFIG), config, {"extractor_mode": tuple(NORMS)})
    return read(folder, read_torch_file(folder / MODEL), config, read_json(folder / LABELS))


def read(path: Path, state: Mapping[str, StoredTensor], config: Settings, labels: Settings) -> Published:
    """The network of a state dict, whose settings are in `config` or, if that is empty, those of a published one.

    `labels` says what a CTC head writes and whether waveforms are normalised; it too may be empty.

    Raises:
        FormatError: where the sizes are those of no published network, or a CTC head has no labels.
    """
    tensors = {names.newer_spelling(name): tensor for name, tensor in state.items()}
    config = config or _published(path, tensors)
    layers = config["extractor_conv_layer_config"] or PAPER_CONV_LAYERS
    features = FeatureEncoder(tuple(map(tuple, layers)), *NORMS[config["extractor_mode"]])
    layer, position, network = (ours(table, config) for table in (LAYER, POSITION, NETWORK))
    pre = config["encoder_layer_norm_first"]
    context = pre_norm(PreNormLayer(**layer), position, network) if pre else post_norm(layer, position, network)
    encoder = Wav2Vec2(features, context, **ours(ENCODER, config))
    normalise = labels.get("normalize", config["extractor_mode"] == "layer_norm")
    num_labels = config["aux_num_out"]
    if not num_labels:
        return Published(Card(EncoderModel(encoder), normalise), tensors)
    return Published(Card(CTCModel(encoder, num_labels), normalise, _vocabulary(path, labels, num_labels)), tensors)


def _published(path: Path, tensors: Mapping[str, StoredTensor]) -> Settings:
    """The arguments that give a state dict's sizes; heads and strides are those of the published networks."""
    t = "encoder.transformer"
    for name in SIZED:
        if name not in tensors:
            raise FormatError(
                f"{path} lacks {name}, which every Wav2Vec2Model of torchaudio has; save its whole state_dict()"
            )
    dim = tensors["encoder.feature_projection.projection.weight"].shape[0]
    found = tuple(
        (tensors[name].shape[0], tensors[name].shape[2])
        for i in range(len(PAPER_CONV_LAYERS))
        if (name := f"feature_extractor.conv_layers.{i}.conv.weight") in tensors
    )
    if dim not in HEADS_OF_PUBLISHED or found != tuple((features, width) for features, width, _ in PAPER_CONV_LAYERS):
        raise FormatError(
            f"{path} has the sizes of no published network, and a state dict doesn't tell heads and strides; put it as "
            f"{MODEL} into a folder with {CONFIG}, the arguments of torchaudio.models.wav2vec2_model"
        )
    layers = {name.split(".")[3] for name in tensors if name.startswith(f"{t}.layers.")}
    position = tensors[f"{t}.pos_conv_embed.conv.parametrizations.weight.original1"].shape
    layer_norm = "feature_extractor.conv_layers.1.layer_norm.weight" in tensors
    head = tensors.get("aux.weight")
    return {
        "extractor_mode": "layer_norm" if layer_norm else "group_norm",
        "extractor_conv_layer_config": PAPER_CONV_LAYERS,
        "extractor_conv_bias": layer_norm,
        "encoder_embed_dim": dim,
        "encoder_projection_dropout": 0.0,
        "encoder_pos_conv_kernel": position[2],
        "encoder_pos_conv_groups": dim // position[1],
        "encoder_num_layers": len(layers),
        "encoder_num_heads": HEADS_OF_PUBLISHED[dim],
        "encoder_attention_dropout": 0.0,
        "encoder_ff_interm_features": tensors[f"{t}.layers.0.feed_forward.intermediate_dense.weight"].shape[0],
        "encoder_ff_interm_dropout": 0.0,
        "encoder_dropout": 0.0,
        "encoder_layer_norm_first": layer_norm,
        "encoder_layer_drop": 0.0,
        "aux_num_out": None if head is None else head.shape[0],
    }


def _vocabulary(path: Path, labels: Settings, num_labels: int) -> Vocabulary:
    if "vocabulary" in labels:
        return build(labels["vocabulary"])
    bundle = BUNDLE_LABELS if num_labels == len(BUNDLE_LABELS) else None
    vocabulary = bundle or letters_if_they_fit(num_labels)
    if vocabulary is None:
        raise FormatError(f"{path} has a head of {num_labels} outputs; nothing tells which symbols they are")
    return vocabulary


def names_of(card: Card) -> names.Names:
    """How torchaudio calls the parameters of a network."""
    return names.with_prefix(names.TORCHAUDIO_ENCODER | names.TORCHAUDIO_TRANSFORMER, "", names.TORCHAUDIO_HEADS)


def derived_of(card: Card) -> dict[str, Any]:
    """torchaudio keeps no tensors that follow from the configuration."""
    return {}


def write(card: Card, tensors: Mapping[str, StoredTensor], target: Path) -> None:
    """Writes a folder: `wav2vec2_model(**config).load_state_dict(torch.load("model.pt"))` gives the network.

    What its labels are, and whether waveforms are normalised, stands in labels.json, which torchaudio knows nothing of.

    Raises:
        FormatError: for a network that torchaudio doesn't have.
    """
    config = _config(card)
    labels = {"normalize": card.normalise}
    if isinstance(card.model, CTCModel):
        labels["vocabulary"] = describe(card.vocabulary)
    with new_folder(target) as folder:
        write_json(folder / CONFIG, config)
        write_json(folder / LABELS, labels)
        write_torch_file(folder / MODEL, {names.older_spelling(name): tensor for name, tensor in tensors.items()})


def _config(card: Card) -> Settings:
    encoder = card.model.encoder
    network, features = encoder.context_network, encoder.feature_encoder
    mode = key_of(NORMS, (features.first, features.rest), "torchaudio")
    return {
        "extractor_mode": mode,
        "extractor_conv_layer_config": features.layers,
        "extractor_conv_bias": mode == "layer_norm",
        "encoder_layer_norm_first": isinstance(network.layer, PreNormLayer),
        "aux_num_out": card.model.num_labels if isinstance(card.model, CTCModel) else None,
        **theirs(ENCODER, encoder),
        **theirs(NETWORK, network),
        **theirs(POSITION, network.position),
        **theirs(LAYER, network.layer),
    }
