"""Folders of transformers: config.json, weights, preprocessor_config.json, vocab.json and tokenizer_config.json."""

import logging
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from w2v2_jax.convert import names
from w2v2_jax.convert.card import NO_VOCABULARY, Card, FormatError, Published, StoredTensor
from w2v2_jax.convert.folders import new_folder, read_json, write_json
from w2v2_jax.convert.huggingface_config import CONFORMER, DEFAULTS, Json, classes_of, config_of, masks_of, model_of
from w2v2_jax.convert.model_card import model_card
from w2v2_jax.convert.rotations import rotations_of
from w2v2_jax.convert.safetensors_files import INDEX, SINGLE, read_safetensors, write_file, write_safetensors
from w2v2_jax.convert.settings import is_conformer
from w2v2_jax.convert.torch_files import read_torch_file
from w2v2_jax.convert.vocabulary_files import default_language, read_vocabulary, write_vocabulary
from w2v2_jax.data.audio import SAMPLE_RATE
from w2v2_jax.feature_encoder import PlainConv
from w2v2_jax.model import CTCModel, EncoderModel

CONFIG, PREPROCESSOR, PROCESSOR = "config.json", "preprocessor_config.json", "processor_config.json"
MODEL_CARD = "README.md"
TORCH_SINGLE, TORCH_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
ADAPTERS = r"\.adapter_layer\.|^lm_head\."
"""What is of one language: transformers keeps it in a file of its own as well."""

_log = logging.getLogger(__name__)


def read(folder: Path, language: str = "") -> Published:
    """A folder with a network for transformers; of one with attention adapters, those of `language`.

    Raises:
        FormatError: for what is missing, damaged or of another family.
    """
    config = read_json(folder / CONFIG)
    tensors = {names.newer_spelling(name): tensor for name, tensor in _tensors(folder).items()}
    if config.get("adapter_attn_dim"):
        language = language or default_language(folder)
        tensors |= _adapters(folder, language)
    elif language:
        raise FormatError(f"{folder} has no attention adapters, so there is no language {language!r} to choose")
    if language and "lm_head.weight" in tensors:
        config |= {"vocab_size": tensors["lm_head.weight"].shape[0]}
    model = model_of(config)
    writes = isinstance(model, CTCModel)
    time_mask, channel_mask = masks_of(config)
    card = Card(
        model,
        _normalise(folder, config),
        read_vocabulary(folder, model.num_labels, language) if writes else NO_VOCABULARY,
        classes_of(config) if hasattr(model, "representation") else (),
        time_mask,
        channel_mask,
        language,
    )
    return Published(card, tensors)


def _tensors(folder: Path) -> Mapping[str, StoredTensor]:
    for single, index, read_file in (
        (SINGLE, INDEX, read_safetensors),
        (TORCH_SINGLE, TORCH_INDEX, read_torch_file),
    ):
        if (folder / single).exists():
            return read_file(folder / single)
        if (folder / index).exists():
            weight_map = read_json(folder / index).get("weight_map")
            if not weight_map:
                raise FormatError(
                    f"{folder / index} has no weight_map, which says where each tensor is; fetch it again"
                )
            shards = {file: read_file(_existing(folder / Path(file).name)) for file in sorted(set(weight_map.values()))}
            return {name: tensor for shard in shards.values() for name, tensor in shard.items()}
    raise FormatError(f"{folder} has a {CONFIG} but no weights; accepted are {SINGLE}, {TORCH_SINGLE} or their index")


def _existing(path: Path) -> Path:
    if not path.exists():
        raise FormatError(f"{path.parent} is not whole: its index names {path.name}, which isn't there; fetch it again")
    return path


def _adapters(folder: Path, language: str) -> Mapping[str, StoredTensor]:
    for file, read_file in (
        (folder / f"adapter.{language}.safetensors", read_safetensors),
        (folder / f"adapter.{language}.bin", read_torch_file),
    ):
        if file.exists():
            return read_file(file)
    among_weights = default_language(folder)
    if language != among_weights:
        found = {path.name.split(".")[1] for path in folder.glob("adapter.*.*")} | {among_weights} - {""}
        known = ", ".join(sorted(found)) or "one alone, of which it doesn't say the language"
        raise FormatError(f"{folder} has no adapter for {language!r}; it has {known}")
    return {}


def _normalise(folder: Path, config: Json) -> bool:
    settings = read_json(folder / PREPROCESSOR) or read_json(folder / PROCESSOR).get("feature_extractor")
    if settings is None:
        layer_norm = (DEFAULTS | config)["feat_extract_norm"] == "layer"
        _log.warning(
            "%s has no %s; waveforms are taken to be %s, as fairseq's recipes have it for this feature encoder",
            folder, PREPROCESSOR, "normalised" if layer_norm else "as they are",
        )  # fmt: skip
        return layer_norm
    if settings.get("sampling_rate", SAMPLE_RATE) != SAMPLE_RATE:
        raise FormatError(f"{folder} is for audio of {settings['sampling_rate']} Hz; accepted is {SAMPLE_RATE} Hz")
    return settings.get("do_normalize", True)


def names_of(card: Card) -> names.Names:
    """How transformers calls the parameters of a network."""
    layer = names.HUGGINGFACE_CONFORMER if is_conformer(card.model) else names.HUGGINGFACE_TRANSFORMER
    return names.with_prefix(names.HUGGINGFACE_ENCODER | layer, _prefix(card), names.HUGGINGFACE_HEADS)


def keeps_mask_embedding(card: Card) -> bool:
    """Whether the network has one in transformers: only if it is trained with masks."""
    return card.time_mask.prob > 0 or card.channel_mask.prob > 0


def _prefix(card: Card) -> str:
    if isinstance(card.model, EncoderModel):
        return ""
    return f"{CONFORMER.replace('-', '_')}." if is_conformer(card.model) else "wav2vec2."


def derived_of(card: Card) -> dict[str, np.ndarray]:
    """Tensors that transformers keeps although they follow from the configuration."""
    name = _prefix(card) + names.HUGGINGFACE_ROTATIONS
    return dict(zip([name], rotations_of(card.model), strict=False))


def write(card: Card, tensors: Mapping[str, StoredTensor], target: Path) -> None:
    """Writes a folder that transformers loads, with all that its processors need.

    Raises:
        FormatError: for a network that transformers cannot express; there is no folder then.
    """
    config = config_of(card)
    preprocessor = {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
        "feature_size": 1,
        "sampling_rate": SAMPLE_RATE,
        "padding_side": "right",
        "padding_value": 0.0,
        "do_normalize": card.normalise,
        # transformers' group norm counts padding, mask or no mask; its networks were trained without one.
        "return_attention_mask": card.model.encoder.feature_encoder.rest is not PlainConv,
    }
    with new_folder(target) as folder:
        write_json(folder / CONFIG, config)
        write_json(folder / PREPROCESSOR, preprocessor)
        (folder / MODEL_CARD).write_text(model_card(card), encoding="utf-8")
        if isinstance(card.model, CTCModel):
            write_vocabulary(card.vocabulary, card.language, folder)
        if card.language:
            adapters = {name: each for name, each in tensors.items() if re.search(ADAPTERS, name)}
            write_file(adapters, folder / f"adapter.{card.language}.safetensors")
        write_safetensors(tensors, folder)
