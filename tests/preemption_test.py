import os
import signal
import threading
import time

import jax
import loopback
import micro
import pytest
from train_test import levels

from w2v2_jax.preemption import Preempted, preemption


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


def test_nothing_is_requested_until_SIGTERM():
    with preemption() as requested:
        assert not requested(1)
        terminate()
        assert requested(2)
        assert requested(3)


def test_further_SIGTERMs_change_nothing():
    with preemption() as requested:
        terminate()
        terminate()
        assert requested(1)


@pytest.mark.parametrize("handler", [signal.SIG_DFL, lambda *_: None])
def test_what_SIGTERM_did_before_it_does_again(handler):
    before = signal.signal(signal.SIGTERM, handler)
    try:
        with pytest.raises(Preempted), preemption():
            assert signal.getsignal(signal.SIGTERM) is not handler
            raise Preempted(1)
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, before)


def test_in_another_thread_nothing_is_touched():
    answers, before = [], signal.getsignal(signal.SIGTERM)

    def run():
        with preemption() as requested:
            answers.extend([requested(1), signal.getsignal(signal.SIGTERM)])

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert answers == [False, before]


def test_an_uncaught_one_exits_with_status_0_and_says_where_the_run_stands():
    assert Preempted(12).code == 0
    assert str(Preempted(12)) == "told to end, and saved at step 12; start again to go on"


def terminate_after_4(num_batches):
    if num_batches == 4:
        terminate()


def terminate_after_5(num_batches):
    if num_batches == 5:
        terminate()


def terminate_at_the_start(num_batches):
    terminate()


@pytest.mark.parametrize(
    "lives", [(terminate_after_4,), (terminate_after_4, terminate_after_5), (terminate_at_the_start,) * 3]
)
def test_a_run_told_to_end_saves_and_ends_as_the_unbroken_one_to_the_last_bit(tmp_path, lives):
    """Logged every 3 steps: it ends in the middle of a row."""
    every = {"log_every": 3, "save_every": 6, "eval_every": 4, "num_steps": 11}
    micro.run(levels, tmp_path / "unbroken", **every)
    saved = []
    for watch in lives:
        with pytest.raises(Preempted) as preempted:
            micro.run(levels, tmp_path / "run", **every, train_data=micro.Watched(levels().train_data, watch))
        saved.append(preempted.value.step)
        assert micro.newest(tmp_path / "run").name == str(saved[-1])
    assert saved == sorted(set(saved))
    micro.run(levels, tmp_path / "run", **every)
    micro.assert_same_run(tmp_path / "run", tmp_path / "unbroken")


def leave_when_told(tmp_path):
    """Processes of unequal speed."""
    with preemption() as requested:
        for step in range(1, 10_000):
            time.sleep(0.01 * (1 + jax.process_index()))
            (tmp_path / f"began_{jax.process_index()}").touch()
            if requested(step):
                (tmp_path / f"left_{jax.process_index()}").write_text(str(step))
                return


def terminate_process_1_after_4(num_batches):
    time.sleep(0.02)
    if num_batches == 4 and jax.process_index() == 1:
        terminate()


def train_until_told(tmp_path):
    data = micro.Watched(levels().train_data, terminate_process_1_after_4)
    with pytest.raises(Preempted) as preempted:
        micro.run(levels, tmp_path, num_steps=500, save_every=400, eval_every=400, train_data=data)
    (tmp_path / f"left_{jax.process_index()}").write_text(str(preempted.value.step))


@pytest.mark.slow
def test_a_run_of_2_processes_of_which_one_is_told_is_saved_by_both_and_goes_on_on_1(tmp_path):
    loopback.run(2, 2, train_until_told, tmp_path)
    first, second = (int((tmp_path / f"left_{place}").read_text()) for place in (0, 1))
    assert str(first) == str(second) == micro.newest(tmp_path).name
    micro.run(levels, tmp_path, devices=1, num_steps=first + 5, save_every=400)
    rows = [row["step"] for row in micro.metric_rows(tmp_path) if "loss" in row]
    assert rows[-1] == first + 5
    assert all(step % 3 == 0 for step in rows[:-2])


@pytest.mark.slow
@pytest.mark.parametrize("told", [0, 1])
def test_whichever_of_several_processes_is_told_all_leave_at_the_same_step(tmp_path, told):
    processes = loopback.start(2, 1, leave_when_told, tmp_path)
    while not all((tmp_path / f"began_{place}").exists() for place in (0, 1)):
        assert all(process.is_alive() for process in processes)
        time.sleep(0.01)
    os.kill(processes[told].pid, signal.SIGTERM)
    loopback.join(processes)
    first, second = ((tmp_path / f"left_{place}").read_text() for place in (0, 1))
    assert first == second
