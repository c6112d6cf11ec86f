"""Every format that a network can be read from and written in."""

import dataclasses
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import PyTree

from w2v2_jax.convert import fairseq, huggingface, torchaudio
from w2v2_jax.convert.card import Card, FormatError, Published, StoredTensor
from w2v2_jax.convert.folders import read_json
from w2v2_jax.convert.names import Names
from w2v2_jax.convert.parameters import MASK_EMBEDDING, Place, check, places, read_params, written
from w2v2_jax.convert.torch_files import read_torch_file

_log = logging.getLogger(__name__)


class Format(NamedTuple):
    """How a format names the parameters of a network, which more tensors it has, and how it is written.

    `keeps_mask_embedding` says whether it has a place for that of a network; what is read may have none in any case.
    """

    names_of: Callable[[Card], Names]
    derived_of: Callable[[Card], Mapping[str, np.ndarray]]
    write: Callable[[Card, Mapping[str, StoredTensor], Path], None]
    keeps_mask_embedding: Callable[[Card], bool]


HUGGINGFACE = Format(huggingface.names_of, huggingface.derived_of, huggingface.write, huggingface.keeps_mask_embedding)
FAIRSEQ = Format(fairseq.names_of, fairseq.derived_of, fairseq.write, lambda card: True)
TORCHAUDIO = Format(torchaudio.names_of, torchaudio.derived_of, torchaudio.write, lambda card: False)
FORMATS = {"huggingface": HUGGINGFACE, "fairseq": FAIRSEQ, "torchaudio": TORCHAUDIO}

ACCEPTED = (
    "accepted are folders of transformers (config.json and weights), .pt files of fairseq, state dicts of torchaudio, "
    "and runs or checkpoints of w2v2_jax"
)


class Weights(NamedTuple):
    """A network, and what reads its parameters to where the shapes of them say; a part of them as well."""

    card: Card
    read: Callable[[PyTree], PyTree]


def open_weights(path: Path, language: str = "") -> Weights:
    """The network in a folder or file of another library; nothing of its parameters is read yet.

    Raises:
        FormatError: for anything else, anything damaged, and a tensor that is unknown or missing, which it names.
        UnsafeFileError: for a file that would run code.
    """
    style, card, tensors, wanted = _opened(path, language)
    if MASK_EMBEDDING in wanted and wanted[MASK_EMBEDDING].names[0] not in tensors:
        _log.warning("%s has no mask embedding; it is drawn as before any training", path)
        del wanted[MASK_EMBEDDING]
    check(tensors, wanted, style.derived_of(card), str(path))
    return Weights(card, lambda abstract: read_params(tensors, wanted, abstract, str(path)))


def _opened(path: Path, language: str) -> tuple[Format, Card, Mapping[str, StoredTensor], dict[str, Place]]:
    try:
        style, (card, tensors) = _read(path, language)
        return style, card, tensors, places(card.model, style.names_of(card))
    except (TypeError, AttributeError, KeyError, IndexError, ArithmeticError) as error:
        raise FormatError(
            f"{path} has settings of which no network can be made ({type(error).__name__}: {error}); fetch it again"
        ) from error


def _read(path: Path, language: str) -> tuple[Format, Published]:
    if path.is_dir():
        config = read_json(path / huggingface.CONFIG)
        if "model_type" in config:
            return HUGGINGFACE, huggingface.read(path, language)
        if "extractor_mode" in config:
            return TORCHAUDIO, torchaudio.read_folder(path)
        lacks = f"has no {huggingface.CONFIG}" if not config else f"has a {huggingface.CONFIG} that names no model_type"
        raise FormatError(f"{path} {lacks}; {ACCEPTED}")
    if path.suffix == ".safetensors":
        raise FormatError(f"{path} is of no use without its {huggingface.CONFIG}; give the folder that holds both")
    content = read_torch_file(path)
    if fairseq.is_fairseq(content):
        return FAIRSEQ, fairseq.read(path, content)
    if torchaudio.is_torchaudio(content):
        return TORCHAUDIO, torchaudio.read(path, content, {}, {})
    if isinstance(content, dict) and any(str(name).startswith("wav2vec2") for name in content):
        raise FormatError(f"{path} holds weights of transformers; give the folder with their {huggingface.CONFIG}")
    raise FormatError(f"{path} holds {_described(content)}; {ACCEPTED}")


def _described(content: Any) -> str:
    if not isinstance(content, dict):
        return f"a {type(content).__name__}"
    shown = ", ".join(repr(str(name)) for name in list(content)[:3])
    return f"a dict with {shown} and {len(content)} entries in all" if content else "an empty dict"


def write_weights(card: Card, parameter: Callable[[str], np.ndarray], target: Path, style: Format) -> bool:
    """Writes a network, whose parameters `parameter` gives by our paths, as another library has it.

    Returns whether the mask embedding is written too: torchaudio has no place for it at all, and transformers none in
    a network that is trained without masks. All else is written, or it is an error.

    Raises:
        FormatError: for what that library has no place for.
    """
    derived = {name: _Derived(array) for name, array in style.derived_of(card).items()}
    wanted = places(card.model, style.names_of(card))
    if not style.keeps_mask_embedding(card):
        wanted.pop(MASK_EMBEDDING, None)
    style.write(card, dict(written(parameter, wanted)) | derived, target)
    return MASK_EMBEDDING in wanted


@dataclasses.dataclass(frozen=True)
class _Derived:
    """An array that is written as a tensor."""

    array: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def dtype(self) -> np.dtype:
        return self.array.dtype

    def read(self) -> np.ndarray:
        return self.array
