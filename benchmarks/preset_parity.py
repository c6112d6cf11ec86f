"""Parity certificates of the presets at full size: our network and that of transformers, with the same random weights.

    python benchmarks/preset_parity.py [PRESET ...]

Needs torch and transformers. Each preset is drawn as before training, written as a folder of transformers and read by
it; both run on the same synthetic audio, on the CPU in float32. A second table says how far ours in bfloat16 is off.
"""

import sys
import tempfile
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from w2v2_jax import presets
from w2v2_jax.convert.card import Card
from w2v2_jax.convert.parity import Certificate, certify
from w2v2_jax.masking import TIME_MASK
from w2v2_jax.model import PretrainingModel, unmasked
from w2v2_jax.pretrained import Pretrained, save_pretrained
from w2v2_jax.tasks import Pretraining

PRESETS = ("base", "large", "large_lv60", "conformer_relative", "conformer_rotary", "xls_r_1b")


def main(*names: str) -> None:
    """Prints a row for each preset and case."""
    print("| preset | clips | hidden states | outputs | largest number |\n|---|---|---|---|---|")
    certificates, rows = {}, []
    for name in names or PRESETS:
        model = getattr(presets, name)()
        params = nn.unbox(jax.jit(Pretraining(model).init)(jax.random.key(0)))
        certificates[name] = certificate_of(name, model, params)
        rows.append(bfloat16_row(name, model, params))
    print("\n| preset | context in bfloat16 | weights rounded to bfloat16 alone |\n|---|---|---|", *rows, sep="\n")
    versions = {f"{name} {version}" for each in certificates.values() for name, version in each.versions.items()}
    print(f"\n{', '.join(sorted(versions))}; {next(iter(certificates.values())).machine}")


def certificate_of(name: str, model: PretrainingModel, params: PyTree) -> Certificate:
    """Writes, reads and compares one preset."""
    card = Card(model, normalise=True, time_mask=TIME_MASK)
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work) / "huggingface"
        save_pretrained(Pretrained(card, params), folder, "huggingface")
        certificate = certify(card, params, folder)
    for case in certificate.cases:
        outputs = max(case.outputs.values())
        print(f"| {name} | {case.name} | {max(case.hidden):.1e} | {outputs:.1e} | {case.largest:.1f} |", flush=True)
    return certificate


def bfloat16_row(name: str, model: PretrainingModel, params: PyTree) -> str:
    """How far the context is off: the norm of the difference by that of the context in float32."""
    encoder, exact = model.encoder, params["encoder"]
    rounded = jax.tree.map(lambda x: x.astype(jnp.bfloat16).astype(jnp.float32), exact)
    audio = unmasked(encoder, [*np.random.default_rng(0).normal(size=(2, 32_000)).astype(np.float32)])

    def context(encoder, params):
        return np.asarray(jax.jit(encoder.apply)({"params": params}, *audio).context, np.float32)

    expected = context(encoder, exact)
    found = context(encoder.clone(dtype="bfloat16"), exact), context(encoder, rounded)
    errors = (np.linalg.norm(each - expected) / np.linalg.norm(expected) for each in found)
    return f"| {name} | {' | '.join(f'{error:.2e}' for error in errors)} |"


if __name__ == "__main__":
    main(*sys.argv[1:])
