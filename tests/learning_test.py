"""Both tasks learn what is known to be there, from nothing, in seconds."""

import micro
import pytest

from w2v2_jax.optimizers import Adam, PolynomialDecay, TriStage
from w2v2_jax.tasks import GumbelTemperature

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_compilation")]


def pretraining():
    """Melodies of five notes that repeat: a hidden frame follows from those around it."""
    task = micro.pretraining_task(gumbel_temperature=GumbelTemperature(2.0, 0.5, 0.99), penalty_weight=0.1)
    optimizer = Adam(PolynomialDecay(peak=1e-2, warmup_steps=20))
    every = {"log_every": 20, "eval_every": 200, "save_every": 200}
    return micro.experiment(
        "pretraining", task, micro.Melodies(16, 16, 800), num_steps=200, optimizer=optimizer, **every
    )


def finetuning():
    data = micro.Spelled(texts=("AB CA", "CAB B"))
    optimizer = Adam(TriStage(peak=2e-2), weight_decay=0.0)
    every = {"log_every": 20, "eval_every": 150, "save_every": 150}
    return micro.experiment("finetuning", micro.unmasked_ctc_task(), data, num_steps=150, optimizer=optimizer, **every)


def test_pretraining_tells_hidden_frames_from_distractors(tmp_path):
    """Chance is 1 in 11, and the codebooks are in use: a collapsed one would know every answer."""
    micro.run(pretraining, tmp_path)
    rows = micro.metric_rows(tmp_path)
    first, *_, last = [row for row in rows if "loss" in row]
    valid = rows[-1]
    assert last["contrastive_loss"] < first["contrastive_loss"] - 0.5
    assert valid["valid/contrastive_accuracy"] > 4 / 11
    assert valid["valid/code_perplexity"] > 5


def test_finetuning_learns_two_utterances_by_heart(tmp_path):
    micro.run(finetuning, tmp_path)
    rows = micro.metric_rows(tmp_path)
    assert rows[-1]["valid/word_error_rate"] == rows[-1]["valid/label_error_rate"] == 0
    assert rows[-1]["valid/loss"] < 0.5
