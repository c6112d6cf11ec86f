"""A parity certificate: our network and that of transformers on the same audio, number by number.

The only file that imports torch and transformers, when a certificate is asked for.
"""

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float32, Int, PyTree

from w2v2_jax.convert.card import Card
from w2v2_jax.convert.huggingface_config import config_of
from w2v2_jax.data.audio import SAMPLE_RATE
from w2v2_jax.heads import XVectors
from w2v2_jax.model import EncoderModel, PretrainingModel, unmasked

PACKAGES = ("w2v2_jax", "jax", "flax", "torch", "transformers")
SECONDS = (1.7, 1.3, 1.0)
TOLERANCE = 1e-4
"""What float32 sums in another order may differ by, of numbers around 1."""


class Case(NamedTuple):
    """Largest differences on some clips: of each hidden state over the valid frames, and of what the head gives.

    `largest` is the largest number of theirs, for comparison.
    """

    name: str
    hidden: tuple[float, ...]
    outputs: dict[str, float]
    largest: float

    @property
    def largest_difference(self) -> float:
        """Over all of these."""
        return float(np.max([*self.hidden, *self.outputs.values()]))


class Certificate(NamedTuple):
    """What was compared with what, and how far apart it was."""

    architecture: str
    config_sha256: str
    versions: dict[str, str]
    machine: str
    cases: tuple[Case, ...]

    @property
    def holds(self) -> bool:
        """Whether no difference is more than `TOLERANCE`, of numbers beyond 1 more than that part of them."""
        return all(case.largest_difference <= TOLERANCE * max(case.largest, 1) for case in self.cases)

    def to_json(self) -> str:
        """Everything."""
        fields = self._asdict() | {"cases": [case._asdict() for case in self.cases], "holds": self.holds}
        return json.dumps(fields, indent=2)

    def to_markdown(self) -> str:
        """A section of a model card."""
        rows = "\n".join(
            f"| {case.name} | {max(case.hidden):.1e} | "
            + ", ".join(f"{name} {difference:.1e}" for name, difference in case.outputs.items())
            + f" | {case.largest:.1f} |"
            for case in self.cases
        )
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        return (
            "## Parity\n\n"
            "Largest differences between w2v2_jax and transformers on synthetic audio, in float32 on the CPU:\n\n"
            "| clips | hidden states | outputs | largest number |\n|---|---|---|---|\n"
            f"{rows}\n\n"
            f"{self.architecture}, {versions}, {self.machine}; sha256 of the configuration {self.config_sha256[:16]}. "
            "Every hidden state by itself is in parity.json.\n"
        )


def certify(card: Card, params: PyTree, folder: Path) -> Certificate:
    """Compares a network of ours with what transformers makes of `folder`.

    Padded clips are compared with theirs one by one: theirs lets padding into the group norm of BASE and into the
    convolutions of a conformer, ours is to give each clip what it gives alone.

    Raises:
        ImportError: without torch and transformers.
    """
    config = config_of(card)
    [architecture] = config["architectures"]
    theirs = _load(architecture, folder)
    first, *_ = waveforms = _waveforms()
    equal = [waveform[: len(waveforms[-1])] for waveform in waveforms]
    cases = (
        _case("one alone", _ours(card, params, [first]), [_theirs(theirs, [first])]),
        _case("equal lengths", _ours(card, params, equal), [_theirs(theirs, equal)]),
        _case("padded", _ours(card, params, waveforms), [_theirs(theirs, [each]) for each in waveforms]),
    )
    canonical = json.dumps(config, sort_keys=True).encode()
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    machine = f"{platform.machine()}, Python {platform.python_version()}"
    return Certificate(architecture, hashlib.sha256(canonical).hexdigest(), versions, machine, cases)


class _Outputs(NamedTuple):
    """Of a batch: hidden states [state batch frame embed], those of the head, and how many frames are valid."""

    hidden: np.ndarray
    heads: dict[str, np.ndarray]
    num_frames: Int[np.ndarray, " batch"]


def _waveforms() -> list[Float32[np.ndarray, " _"]]:
    """Noise whose loudness and colour drift, so that no two clips and no two frames are alike."""
    rng = np.random.default_rng(0)
    clips = []
    for seconds in SECONDS:
        time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
        tone = np.sin(2 * np.pi * (200 + 300 * rng.random()) * time * (1 + time))
        clip = (rng.normal(size=len(time)) + 2 * tone) * (1.2 + np.sin(9 * time))
        clips.append(((clip - clip.mean()) / clip.std()).astype(np.float32))
    return clips


def _ours(card: Card, params: PyTree, waveforms: list[Float32[np.ndarray, " _"]]) -> _Outputs:
    model = card.model
    waveform, num_samples, masked, no_channel = unmasked(model.encoder, waveforms)
    audio = (waveform, num_samples, masked)
    encoded = jax.jit(model.encoder.apply)({"params": params["encoder"]}, *audio, no_channel)
    rest: tuple[Any, ...] = (no_channel,)
    if isinstance(model, PretrainingModel):
        every_frame = jnp.broadcast_to(jnp.arange(masked.shape[1]), masked.shape)
        noise = jnp.zeros((*masked.shape, model.quantizer.num_groups, model.quantizer.num_entries))
        rest = (every_frame, noise, 1.0)
    output = jax.jit(model.apply)({"params": params}, *audio, *rest)
    heads = {name: np.asarray(each) for name, each in _heads(model, output).items()}
    return _Outputs(np.asarray(encoded.hidden), heads, np.asarray(model.encoder.num_valid_frames(num_samples)))


def _heads(model: Any, output: Any) -> dict[str, Float[jax.Array, "..."]]:
    if isinstance(model, PretrainingModel):
        return {"projected_states": output.context, "projected_quantized_states": output.quantized}
    if isinstance(model, EncoderModel):
        return {"last_hidden_state": output.context}
    if isinstance(output, XVectors):
        return {"embeddings": output.embeddings, "logits": output.logits}
    return {"logits": output}


def _load(architecture: str, folder: Path) -> Any:
    import transformers

    return getattr(transformers, architecture).from_pretrained(folder, dtype="float32").eval()


def _theirs(model: Any, waveforms: list[Float32[np.ndarray, " _"]]) -> _Outputs:
    import torch

    with torch.no_grad():
        output = model(torch.tensor(np.stack(waveforms)), output_hidden_states=True)
    hidden = np.stack([each.numpy() for each in output.hidden_states])
    names = ("projected_states", "projected_quantized_states", "last_hidden_state", "embeddings", "logits")
    heads = {name: output[name].numpy() for name in names if name in output}
    return _Outputs(hidden, heads, np.full(len(waveforms), hidden.shape[2]))


def _case(name: str, ours: _Outputs, theirs: list[_Outputs]) -> Case:
    """Compares a batch of ours with theirs of the same clips, in one or several batches."""
    pairs = list(_pairs(ours, theirs))
    hidden = np.max([np.abs(a.hidden - b.hidden).max(axis=(1, 2)) for a, b in pairs], axis=0)
    outputs = {
        head: float(np.max([np.abs(a.heads[head] - b.heads[head]).max() for a, b in pairs])) for head in ours.heads
    }
    largest = max(float(np.abs(b.hidden).max()) for _, b in pairs)
    return Case(name, tuple(map(float, hidden)), outputs, largest)


def _pairs(ours: _Outputs, theirs: list[_Outputs]) -> Iterator[tuple[_Outputs, _Outputs]]:
    rows = [(each, row) for each in theirs for row in range(len(each.num_frames))]
    for place, (each, row) in enumerate(rows):
        yield _row(ours, place), _row(each, row)


def _row(outputs: _Outputs, row: int) -> _Outputs:
    """One clip's, without the frames of padding."""
    num_frames, padded = outputs.num_frames[row], outputs.hidden.shape[2]
    heads = {
        name: each[row, :num_frames] if each.ndim == 3 and each.shape[1] == padded else each[row]
        for name, each in outputs.heads.items()
    }
    return _Outputs(outputs.hidden[:, row, :num_frames], heads, outputs.num_frames[row : row + 1])
