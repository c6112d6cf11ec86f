"""fairseq's .pt files: networks pretrained or fine-tuned with CTC, with their args (to 2020) or their cfg (since).

The dictionary of a fine-tuned one is in the file or beside it, as dict.ltr.txt.
"""

import collections
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from w2v2_jax.convert import names
from w2v2_jax.convert.card import Card, FormatError, Published, StoredTensor
from w2v2_jax.convert.fairseq_config import (
    cfg_of,
    ctc_model,
    extractor_mode,
    masks_of,
    pretraining_model,
    tuning_of,
)
from w2v2_jax.convert.rotations import rotations_of
from w2v2_jax.convert.settings import Settings, is_conformer
from w2v2_jax.convert.torch_files import write_torch_file
from w2v2_jax.convert.vocabulary_files import letters_if_they_fit, read_dictionary, write_dictionary
from w2v2_jax.data.text import SPECIALS, Vocabulary
from w2v2_jax.model import CTCModel, PretrainingModel

DICTIONARY = "dict.ltr.txt"
FINETUNED_PREFIX = "w2v_encoder.w2v_model."
NO_TRAINING = {"criterion_name": "", "optimizer_name": "", "lr_scheduler_state": {}, "num_updates": 0}
"""fairseq looks at the last of what training there was: there must be one."""


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
    _check_name(path, model, "wav2vec2")
    network = pretraining_model(path, model)
    return Published(Card(network, bool(task.get("normalize", False)), **masks_of(model)), tensors)


def _finetuned(path: Path, content: Settings, model: Settings, task: Settings, tensors: Mapping[str, Any]) -> Card:
    _check_name(path, model, "wav2vec_ctc")
    if not model.get("w2v_args"):
        raise FormatError(f"{path} doesn't say of what kind it is: it has no w2v_args; save it with fairseq again")
    head = tensors.get(f"{names.FAIRSEQ_HEADS['head']}.weight")
    if head is None:
        raise FormatError(f"{path} has no CTC head {names.FAIRSEQ_HEADS['head']}.weight, as wav2vec_ctc has")
    pretraining = _plain(model["w2v_args"])
    pretraining = _plain(pretraining.get("model") or pretraining)
    network = ctc_model(path, pretraining, model, head.shape[0])
    normalise = task.get("normalize", model.get("normalize", False))
    vocabulary = _vocabulary(path, content, head.shape[0])
    tuning = tuning_of(model)
    return Card(network, bool(normalise), vocabulary, **(masks_of(tuning) if tuning["apply_mask"] else {}))


def _settings(content: Settings) -> tuple[Settings, Settings]:
    """The settings of model and task; in the time of args they stand together."""
    if content.get("cfg"):
        cfg = _plain(content["cfg"])
        return _plain(cfg.get("model")), _plain(cfg.get("task"))
    return _plain(content["args"]), _plain(content["args"])


def _plain(settings: Any) -> Settings:
    return dict(settings) if isinstance(settings, Mapping) else {}


def _check_name(path: Path, model: Settings, wanted: str) -> None:
    name = model.get("_name") or model.get("arch")
    if name != wanted:
        raise FormatError(f"{path} is a checkpoint of {name!r}; accepted are fairseq's wav2vec2 and wav2vec_ctc")


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


def names_of(card: Card) -> names.Names:
    """How fairseq calls the parameters of a network."""
    layer = names.FAIRSEQ_CONFORMER if is_conformer(card.model) else names.FAIRSEQ_TRANSFORMER
    norm = names.FAIRSEQ_GROUP_NORM if extractor_mode(card) == "default" else {}
    return names.with_prefix(names.FAIRSEQ_ENCODER | norm | layer, _prefix(card), names.FAIRSEQ_HEADS)


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
        FileExistsError: where there is a dict.ltr.txt of other symbols.
    """
    if path.suffix != ".pt":
        raise FormatError(f"fairseq keeps a network in a file: {path} should end in .pt")
    if not isinstance(card.model, PretrainingModel | CTCModel):
        raise FormatError(f"fairseq has no {type(card.model).__name__}; convert to huggingface")
    content = {
        "args": None,
        "cfg": cfg_of(card),
        "model": collections.OrderedDict((names.older_spelling(name), each) for name, each in tensors.items()),
        "criterion": None,
        "optimizer_history": [NO_TRAINING],
        "task_state": {},
        "extra_state": {},
        "last_optimizer_state": None,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(card.model, CTCModel):
        _write_dictionary(card.vocabulary, path.parent / DICTIONARY)
    write_torch_file(path, content)


def _write_dictionary(vocabulary: Vocabulary, path: Path) -> None:
    """One of the same symbols stays as it is: it may have counts."""
    if not path.exists():
        write_dictionary(vocabulary, path)
    elif (vocabulary.blank_id, vocabulary.ids) != (0, read_dictionary(path).ids):
        raise FileExistsError(f"{path} has other symbols than this network; give another folder, or remove it first")
