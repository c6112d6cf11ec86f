import importlib
import itertools
import json
import math
import sys
import types

import jax.numpy as jnp
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from w2v2_jax.metrics import TIMED, Mean, MetricWriter, TrainingLog, merge, read_rows


def write(workdir, steps, resume_step=0):
    writer = MetricWriter(workdir, resume_step)
    for step in steps:
        writer.write(step, {"train/loss": 1 / step, "train/accuracy": jnp.float32(0.5)})
    writer.close()
    return workdir / "metrics.jsonl"


def test_merging_means_weighs_them():
    a, b = {"loss": Mean(jnp.float32(6), jnp.float32(2))}, {"loss": Mean(jnp.float32(3), jnp.float32(4))}
    assert merge(a, b)["loss"].value() == 9 / 6
    assert merge(a, b, b)["loss"].value() == 12 / 10
    assert merge(a) == a


def test_the_mean_of_nothing_is_nan():
    assert math.isnan(Mean(jnp.float32(0), jnp.float32(0)).value())


def test_rows_are_readable_as_soon_as_they_are_written(tmp_path):
    writer = MetricWriter(tmp_path)
    writer.write(10, {"train/loss": jnp.float32(6.5)})
    assert read_rows(tmp_path / "metrics.jsonl") == [{"step": 10, "train/loss": 6.5}]
    writer.close()


def test_the_file_of_a_resumed_run_is_that_of_an_unbroken_one(tmp_path):
    unbroken = write(tmp_path / "unbroken", range(1, 10))
    resumed = write(tmp_path / "resumed", range(1, 7))
    with resumed.open("a") as file:
        file.write('{"step": 7, "train/lo')
    write(tmp_path / "resumed", range(5, 10), resume_step=4)
    assert resumed.read_bytes() == unbroken.read_bytes()


def test_a_new_run_in_an_old_folder_starts_an_empty_file(tmp_path):
    write(tmp_path, [1, 2, 3])
    assert [row["step"] for row in read_rows(write(tmp_path, [1]))] == [1]


def test_a_torn_last_line_is_left_out(tmp_path):
    path = write(tmp_path, [1, 2])
    path.write_bytes(path.read_bytes()[:-5])
    assert [row["step"] for row in read_rows(path)] == [1]


def test_a_broken_line_in_the_middle_is_an_error(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(ValueError, match="isn't JSON"):
        read_rows(path)


def test_values_that_are_not_finite_come_back_as_they_are(tmp_path):
    writer = MetricWriter(tmp_path)
    writer.write(1, {"a": math.nan, "b": math.inf})
    writer.close()
    [row] = read_rows(tmp_path / "metrics.jsonl")
    assert math.isnan(row["a"]) and row["b"] == math.inf


def test_tensorboard_shows_the_values_and_forgets_those_beyond_a_resumed_step(tmp_path):
    write(tmp_path, [1, 2, 3, 4])
    write(tmp_path, [3], resume_step=2)
    events = EventAccumulator(str(tmp_path)).Reload()
    shown = [(event.step, event.value) for event in events.Scalars("train/loss")]
    assert shown == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]


class Unseen:
    def update(self, step, values):
        pass


def rows_of(workdir, lives):
    """Of a run whose `lives` log that many steps each, and a row every 4: the sums of floats depend on their order."""
    ends = list(itertools.accumulate(lives, initial=0))
    for start, end in itertools.pairwise(ends):
        writer = MetricWriter(workdir, resume_step=start)
        log = TrainingLog(writer, Unseen(), float)
        log.set_state(json.loads((workdir / "state").read_text()) if start else {})
        for step in range(start + 1, end + 1):
            log.flush_due()
            metrics = {"loss": Mean(jnp.float32(1 / step), jnp.float32(3)), "audio_seconds": Mean(jnp.int32(2), 1)}
            log.add(step, metrics, due=step % 4 == 0)
        log.flush_due()
        (workdir / "state").write_text(json.dumps(log.get_state()))
        writer.close()
    return [{k: v for k, v in row.items() if k not in TIMED} for row in read_rows(workdir / "metrics.jsonl")]


@pytest.mark.parametrize("lives", [(1, 19), (3, 17), (4, 16), (5, 1, 1, 1, 12)])
def test_a_run_that_ends_between_two_rows_goes_on_in_the_same_row(tmp_path, lives):
    (tmp_path / "unbroken").mkdir()
    assert rows_of(tmp_path, lives) == rows_of(tmp_path / "unbroken", (20,))


def test_a_row_begins_anew_where_a_run_goes_on_with_other_metrics(tmp_path):
    writer = MetricWriter(tmp_path)
    log = TrainingLog(writer, Unseen(), float)
    log.set_state({"seconds": 1.0, "sums": {"other": [[1.0, "float32"], [1.0, "float32"]]}})
    log.add(1, {"audio_seconds": Mean(jnp.float32(2), jnp.float32(1))}, due=True)
    log.flush()
    writer.close()
    assert read_rows(tmp_path / "metrics.jsonl")[0]["audio_seconds"] == 2


@pytest.fixture
def wandb_calls(monkeypatch):
    """What a stand-in for an installed wandb is called with; nobody is logged in."""
    calls = []

    class Run:
        def log(self, values, step):
            calls.append((step, values))

        def finish(self):
            calls.append("finish")

    def init(**settings):
        calls.append(settings["id"])
        return Run()

    wandb = types.ModuleType("wandb")
    wandb.__spec__ = importlib.machinery.ModuleSpec("wandb", loader=None)
    wandb.init = init
    wandb.api = types.SimpleNamespace(api_key=None)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    return calls


def test_weights_and_biases_gets_the_values_of_one_run_however_often_resumed(tmp_path, monkeypatch, wandb_calls):
    monkeypatch.setenv("WANDB_MODE", "offline")
    write(tmp_path, [1])
    write(tmp_path, [2], resume_step=1)
    first_id, first_row, _, second_id, *_ = wandb_calls
    assert first_id == second_id
    assert first_row == (1, {"train/loss": 1.0, "train/accuracy": 0.5})


@pytest.mark.parametrize("name", ["WANDB_API_KEY", "WANDB_MODE", "its own file"])
def test_weights_and_biases_is_used_wherever_a_key_or_a_mode_is_known(tmp_path, monkeypatch, wandb_calls, name):
    if name == "its own file":
        monkeypatch.setattr("wandb.api.api_key", "secret")
    else:
        monkeypatch.setenv(name, "x")
    write(tmp_path, [1])
    assert len(wandb_calls) == 3


@pytest.mark.parametrize("known", [True, False])
def test_weights_and_biases_without_a_login_gets_nothing_and_that_is_said_once(
    tmp_path, monkeypatch, wandb_calls, caplog, known
):
    if not known:  # whether somebody is logged in
        monkeypatch.delattr("wandb.api")
    write(tmp_path, [1, 2])
    assert wandb_calls == []
    [message] = caplog.messages
    assert "installed but not logged in" in message and "wandb login" in message


def test_an_object_store_is_refused(tmp_path):
    with pytest.raises(ValueError, match="gs://bucket/run"):
        MetricWriter("gs://bucket/run")


def test_every_line_is_plain_json(tmp_path):
    for line in write(tmp_path, [1, 2]).read_text().splitlines():
        assert list(json.loads(line)) == ["step", "train/loss", "train/accuracy"]
