"""Parity with fairseq itself, both ways: it loads what we write, we read what it saves, and the outputs are equal.

    python benchmarks/fairseq_parity.py [PRESET ...]

Needs fairseq 0.12.2 with torch. That fairseq is of the time of Python 3.8: on 3.11 its dataclasses have to be given
`field(default_factory=...)` where they have an instance as default. Weights are random; on the CPU, in float32.
"""

import sys
import tempfile
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import torch
from fairseq import checkpoint_utils
from omegaconf import OmegaConf

from w2v2_jax import presets
from w2v2_jax.convert.card import Card
from w2v2_jax.data.text import LETTERS
from w2v2_jax.masking import TIME_MASK
from w2v2_jax.model import CTCModel
from w2v2_jax.pretrained import Pretrained, from_pretrained, save_pretrained
from w2v2_jax.tasks import CTCFinetuning, Pretraining

PRESETS = ("base", "large_lv60", "conformer_relative")
NUM_SAMPLES = 20_000


def main(*names: str) -> None:
    """Prints a row for each preset, pretrained and with a CTC head."""
    print("| network | written by us, run by fairseq | saved by fairseq, read by us | largest number |")
    print("|---|---|---|---|")
    for name in names or PRESETS:
        model = getattr(presets, name)()
        compare(name, Pretraining(model), Card(model, normalise=True, time_mask=TIME_MASK))
        ctc = CTCModel(model.encoder, len(LETTERS))
        compare(f"{name}, CTC", CTCFinetuning(ctc, LETTERS), Card(ctc, True, LETTERS, time_mask=TIME_MASK))


def compare(name: str, task: Pretraining | CTCFinetuning, card: Card) -> None:
    """Sends random weights there, and a copy that was changed there back."""
    params = nn.unbox(jax.jit(task.init)(jax.random.key(0)))
    ours = Pretrained(card, params)
    with tempfile.TemporaryDirectory() as work:
        file = Path(work) / "model.pt"
        save_pretrained(ours, file, "fairseq")
        [model], cfg, their_task = checkpoint_utils.load_model_ensemble_and_task(
            [str(file)], arg_overrides={"data": work}, strict=True
        )
        there, largest = difference(ours, model.eval())
        with torch.no_grad():
            for weight in model.parameters():
                weight.mul_(1.01)
        saved = {
            "args": None,
            "cfg": OmegaConf.to_container(cfg, resolve=True, enum_to_str=True),
            "model": model.state_dict(),
            "optimizer_history": [],
            "task_state": their_task.state_dict(),
        }
        torch.save(saved, Path(work) / "theirs.pt")
        (Path(work) / "dict.ltr.txt").unlink(missing_ok=True)  # theirs has it in task_state
        back, _ = difference(from_pretrained(Path(work) / "theirs.pt"), model)
    print(f"| {name} | {there:.1e} | {back:.1e} | {largest:.1f} |", flush=True)


def difference(ours: Pretrained, theirs: torch.nn.Module) -> tuple[float, float]:
    """The largest difference of context or logits on two clips, and the largest number."""
    rng = np.random.default_rng(0)
    clips = [rng.normal(size=NUM_SAMPLES).astype(np.float32) for _ in range(2)]
    # Ours normalises: theirs is given what that makes of the clips.
    source = torch.nn.functional.layer_norm(torch.tensor(np.stack(clips)), (NUM_SAMPLES,))
    with torch.no_grad():
        if isinstance(ours.card.model, CTCModel):
            no_padding = torch.zeros(source.shape, dtype=torch.bool)
            expected = theirs(source=source, padding_mask=no_padding)["encoder_out"].transpose(0, 1).numpy()
            found = ours(clips)
        else:
            expected = theirs(source, mask=False, features_only=True)["x"].numpy()
            found = ours(clips).context
    return float(np.abs(np.asarray(found) - expected).max()), float(np.abs(expected).max())


if __name__ == "__main__":
    main(*sys.argv[1:])
