"""Networks with their parameters, from whatever they are in: `from_pretrained("wav2vec2-base-960h")`."""

import dataclasses
import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Float32, PyTree

from w2v2_jax.checkpoints import Checkpoints, Json, is_checkpoint, read_description, restore_params
from w2v2_jax.convert.card import Card
from w2v2_jax.convert.folders import new_folder
from w2v2_jax.convert.formats import FORMATS, Weights, open_weights, write_weights
from w2v2_jax.convert.parameters import abstract_params, in_memory, one_at_a_time
from w2v2_jax.data.audio import normalise
from w2v2_jax.description import build, describe
from w2v2_jax.model import EncoderModel, PretrainingModel, unmasked
from w2v2_jax.sharding import make_mesh, replicated

OURS = "ours"
TARGETS = (OURS, *FORMATS)

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, eq=False)
class Pretrained:
    """A network that can be used at once: what it is, and its parameters."""

    card: Card
    params: PyTree

    def __call__(self, waveforms: Sequence[Float32[np.ndarray, " _"]]) -> Any:
        """What the network makes of 16 kHz waveforms, as one batch; normalises them if need be.

        Logits [batch frame label] of a CTC model, [batch class] or [batch frame class] of a classifier, `XVectors` of a
        speaker model, and of one without a head or with that of pretraining all that its encoder gives. Frames of
        padding, `num_frames` tells which, mean nothing.
        """
        model, params = self.card.model, self.params
        if isinstance(model, PretrainingModel):
            model, params = EncoderModel(model.encoder), {"encoder": params["encoder"]}
        waveforms = [normalise(waveform) if self.card.normalise else waveform for waveform in waveforms]
        return self._apply(model)({"params": params}, *unmasked(model.encoder, waveforms))

    def num_frames(self, waveforms: Sequence[Float32[np.ndarray, " _"]]) -> list[int]:
        """How many frames of each row are real audio."""
        return [self.card.model.encoder.num_frames(len(waveform)) for waveform in waveforms]

    @staticmethod
    @functools.cache
    def _apply(model: nn.Module):
        return jax.jit(model.apply)


def from_pretrained(path: str | Path, language: str = "") -> Pretrained:
    """The network of a run or checkpoint of ours, a folder of transformers, a fairseq file, a torchaudio state dict.

    Of a network with adapters for many languages, `language` chooses one. Its parameters lie on every device of this
    process.

    Raises:
        FormatError: for anything else, anything damaged, and a tensor that is unknown or missing, which it names.
    """
    weights = open_any(path, language)
    return Pretrained(weights.card, weights.read(placed(weights.card.model)))


def save_pretrained(pretrained: Pretrained, target: str | Path, to: str = OURS) -> None:
    """Writes a network as one of `TARGETS`: "ours", "huggingface", "fairseq" or "torchaudio".

    Raises:
        FormatError: for what that library has no place for.
        FileExistsError: where there is something at `target`.
    """
    if to == OURS:
        _save(pretrained, _free(target))
    else:
        _write(pretrained.card, in_memory(pretrained.params), _free(target), to)


def _save(pretrained: Pretrained, target: Path) -> None:
    with new_folder(target) as folder:
        checkpoints = Checkpoints(folder, describe(pretrained.card))
        checkpoints.save(0, {"params": pretrained.params}, {})
        checkpoints.close()


def _free(target: str | Path) -> Path:
    if "://" in str(target):
        raise ValueError(f"a network is written into a local or mounted folder; {target} is neither")
    path = Path(target).expanduser()
    if path.exists():
        raise FileExistsError(f"{path} exists; give another name, or remove it first")
    return path


def convert(source: str | Path, target: str | Path, to: str = OURS, language: str = "") -> Card:
    """Writes the network of whatever `from_pretrained` reads as one of `TARGETS`, and returns its card.

    At most the parameters are in memory once, and none but one of them where the target isn't ours.

    Raises:
        FormatError: for what is none of that, anything damaged, and what the target has no place for.
        FileExistsError: where there is something at `target`.
    """
    path = _free(target)
    weights = open_any(source, language)
    shapes = placed(weights.card.model)
    if to == OURS:
        _save(Pretrained(weights.card, weights.read(shapes)), path)
    else:
        _write(weights.card, one_at_a_time(weights.read, shapes), path, to)
    return weights.card


def _write(card: Card, parameter: Callable[[str], np.ndarray], target: Path, to: str) -> None:
    if to not in FORMATS:
        raise ValueError(f"there is no format {to!r}; give one of {', '.join(TARGETS)}")
    if not write_weights(card, parameter, target, FORMATS[to]):
        _log.warning("%s has no place for the mask embedding of this network; it is left out", to)


def open_any(path: str | Path, language: str = "") -> Weights:
    """As `from_pretrained`, with nothing of the parameters read yet."""
    if not is_checkpoint(path):
        return open_weights(_existing(path), language)
    if language:
        raise ValueError(f"{path} has no attention adapters to choose from: a checkpoint of ours is of one language")
    return Weights(_card(path, read_description(path)), functools.partial(restore_params, path))


def read_params(path: str | Path, abstract: PyTree) -> PyTree:
    """Parameters, or part of them, from whatever `from_pretrained` reads, each where its abstract says.

    Of a checkpoint of ours nothing else is looked at: the classes that it was made with need not be there.

    Raises:
        CheckpointMismatchError, FormatError: for another architecture, naming the first array that differs.
    """
    if is_checkpoint(path):
        return restore_params(path, abstract)
    return open_weights(_existing(path)).read(abstract)


def _existing(path: str | Path) -> Path:
    found = Path(path).expanduser()
    if not found.exists():
        raise FileNotFoundError(f"there is no {path}: no checkpoint, folder or file")
    return found


def _card(path: str | Path, description: Json) -> Card:
    """The card of a converted network, or what a run says of its own."""
    settings = description["with"]
    if "task" not in settings:
        return build(description)
    normalised = set(_told(settings["valid_data"], "normalise"))
    if len(normalised) != 1:
        raise ValueError(
            f"the data of {path} doesn't say whether waveforms are normalised, or says both; give its class a field "
            "`normalise`, and all sets of it the same"
        )
    task = build(settings["task"])
    known = {name: getattr(task, name) for name in ("vocabulary", "time_mask", "channel_mask") if hasattr(task, name)}
    return Card(task.model, normalised.pop(), **known)


def _told(description: Any, name: str) -> Iterator[Any]:
    """What the setting `name` is, wherever in a description there is one: several datasets each have theirs."""
    if isinstance(description, list):
        for item in description:
            yield from _told(item, name)
    elif isinstance(description, dict):
        for setting, value in description.get("with", {}).items():
            yield from [value] if setting == name else _told(value, name)


def placed(model: nn.Module) -> PyTree:
    """Shapes of a model's parameters, to lie on every device of this process."""
    everywhere = replicated(make_mesh(jax.local_devices()))
    shapes = nn.unbox(abstract_params(model))
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere), shapes)
