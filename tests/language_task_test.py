import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import micro
import numpy as np
import pytest
import small_language

from w2v2_jax.batches import TokenBatch, example_keys
from w2v2_jax.language_task import LanguageModelling
from w2v2_jax.sharding import MeshShape

pytestmark = pytest.mark.usefixtures("quick_compilation")

TASK = LanguageModelling(small_language.model(dropout=0.3))
KEYS = example_keys(jax.random.key(0), 3)
LOG_PROBS = -jnp.arange(12.0).reshape(3, 4)
BATCH = TokenBatch(jnp.array([[5, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]), jnp.array([3, 1, 0]))


def test_the_objective_sums_over_words_and_ends_and_not_over_padding():
    """The first row has log probabilities 0, -1, -2 of two words and an end, the second -4 of an end."""
    loss, metrics = TASK.objective(LOG_PROBS, BATCH)
    assert (loss.total, loss.weight) == (7, 4)
    assert metrics["loss"] == loss


def test_unknown_words_are_counted():
    unknown = TASK.objective(LOG_PROBS, BATCH)[1]["unknown_words"]
    assert (unknown.total, unknown.weight) == (1, 4)


PARAMS = nn.unbox(jax.jit(TASK.init)(jax.random.key(0)))


@jax.jit
def evaluate(keys):
    return TASK.evaluate(PARAMS, BATCH, keys)


def test_a_new_model_is_about_as_uncertain_as_chance():
    loss = evaluate(KEYS)["loss"].value()
    assert loss == pytest.approx(math.log(16), abs=1)


def test_dropout_follows_the_key_of_the_first_row_and_acts_in_training_alone():
    @jax.jit
    def loss(keys):
        return TASK.loss(PARAMS, BATCH, keys, jnp.int32(0))[0].total

    others = example_keys(jax.random.key(1), 3)
    assert loss(KEYS) == loss(jnp.concatenate([KEYS[:1], others[1:]])) != loss(others)
    assert evaluate(KEYS) == evaluate(others)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    small_language.write_text(folder)
    return folder


@pytest.fixture(scope="module")
def unbroken(data_dir, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("unbroken")
    micro.run(small_language.experiment, workdir, devices=1, data_dir=data_dir)
    return workdir


class KilledError(Exception):
    pass


def kill_after_5(batches):
    if batches == 5:
        raise KilledError


def test_a_run_killed_and_started_again_is_the_unbroken_one(data_dir, unbroken, tmp_path):
    make = functools.partial(small_language.experiment, data_dir)
    with pytest.raises(KilledError):
        micro.run(make, tmp_path, devices=1, train_data=micro.Watched(make().train_data, kill_after_5))
    micro.run(make, tmp_path, devices=1)
    micro.assert_same_run(tmp_path, unbroken)


def losses_of(workdir):
    return [row["loss"] for row in micro.metric_rows(workdir) if "loss" in row]


def test_a_run_is_the_same_however_the_work_is_cut(data_dir, unbroken, tmp_path):
    cut = {"accumulation_steps": 2, "mesh": MeshShape(fsdp=2, tensor=2)}
    micro.run(small_language.experiment, tmp_path, devices=4, data_dir=data_dir, **cut)
    np.testing.assert_allclose(losses_of(tmp_path), losses_of(unbroken), rtol=1e-3)


def test_a_row_says_how_many_tokens_were_trained_on(unbroken):
    rows = [row for row in micro.read_rows(unbroken / "metrics.jsonl") if "loss" in row]
    assert all(row["tokens_per_second"] > 0 and 16 <= row["tokens"] <= 16 * 8 for row in rows)
