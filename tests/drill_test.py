import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from w2v2_jax.checkpoints import Checkpoints
from w2v2_jax.drill import DrillError, Kill, Outcome, Run, drill, first_difference, summary, table

HERE = Path(__file__).parent
NUM_STEPS, EVAL_EVERY = 60, 10


def script(text):
    return Run([sys.executable, "-c", text], NUM_STEPS, EVAL_EVERY)


def counting(bug):
    return Run([sys.executable, str(HERE / "counting.py"), bug], NUM_STEPS, EVAL_EVERY)


def quiet():
    return Console(file=io.StringIO())


@pytest.mark.slow
def test_a_run_that_resumes_well_is_found_equal_however_it_was_killed(tmp_path):
    outcome = drill(counting("none"), tmp_path, num_kills=3, console=quiet())
    assert not outcome.difference
    assert {kill.signal for kill in outcome.kills} == {signal.SIGKILL, signal.SIGTERM}
    assert (outcome.num_rows, outcome.num_arrays) == (66, 2)
    assert "all 66 rows of metrics and 2 arrays" in summary(outcome)


@pytest.mark.slow
def test_what_a_run_forgets_when_it_is_killed_is_found_and_named(tmp_path):
    outcome = drill(counting("drifts"), tmp_path, num_kills=2, console=quiet())
    assert outcome.difference == "state has other bits in 1 of 3 numbers"
    assert "differs from the unbroken one" in summary(outcome)


def test_a_run_that_fails_by_itself_is_an_error_with_its_last_words(tmp_path):
    with pytest.raises(DrillError, match=r"with status 3 and step 0 of 60 saved; see .*unbroken.log, which ends: no!"):
        drill(script("import sys; print('no!'); sys.exit(3)"), tmp_path, num_kills=1, console=quiet())


def test_a_drill_begins_with_nothing(tmp_path):
    (tmp_path / "metrics.jsonl").touch()
    with pytest.raises(ValueError, match="isn't empty"):
        drill(script(""), tmp_path, num_kills=1)


def test_at_least_one_kill_is_asked_for(tmp_path):
    with pytest.raises(ValueError, match="kills=0: give at least 1"):
        drill(script(""), tmp_path, num_kills=0)


def commands_with(text):
    """Of all processes: the command lines in which `text` occurs."""
    return [command for command in map(_command_line, Path("/proc").glob("[0-9]*")) if text in command]


def _command_line(process):
    # It may end meanwhile.
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return (process / "cmdline").read_bytes().decode(errors="replace")
    return ""


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_drill_leaves_no_process_behind(tmp_path, number):
    """The run is a shell that starts another process, deaf to what can be ignored."""
    marker = str(tmp_path / "marker")
    deaf = f"trap '' INT TERM HUP; sh -c 'sleep 1000; : {marker}' & touch {marker}; wait; wait"
    code = (
        # What was started in the background of a shell ignores Ctrl-C.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from pathlib import Path; from w2v2_jax.drill import Run, drill; "
        f"drill(Run(['sh', '-c', {deaf!r}], 1, 1), Path({str(tmp_path / 'drill')!r}), 1)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, cwd=HERE.parent)
    while not Path(marker).exists():
        assert process.poll() is None
        time.sleep(0.01)
    assert len(commands_with(marker)) == 3
    while process.poll() is None:
        process.send_signal(number)
        # Python drops what is raised while it collects garbage: as a person would, say it again.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=10)
    assert process.returncode != 0
    assert commands_with(marker) == []


def finished(workdir, rows, arrays):
    checkpoints = Checkpoints(workdir, {})
    checkpoints.save(2, arrays, {})
    checkpoints.close()
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return workdir


ROWS = ({"step": 1, "loss": float("nan")}, {"step": 2, "loss": 0.5, "audio_hours_per_second": 1.0})
ARRAYS = {"params": {"kernel": np.array([0.0, np.nan, 3.0], np.float32)}}


@pytest.mark.parametrize(
    ("rows", "arrays", "difference"),
    [
        (ROWS, ARRAYS, ""),
        ((ROWS[0], ROWS[1] | {"audio_hours_per_second": 2.0}), ARRAYS, ""),
        ((ROWS[0], ROWS[1] | {"loss": 0.25}), ARRAYS, "loss in row 2 of metrics.jsonl is 0.25, not 0.5"),
        ((ROWS[0], ROWS[1] | {"extra": 1}), ARRAYS, "extra in row 2 of metrics.jsonl is 1, not None"),
        (ROWS[:1], ARRAYS, "metrics.jsonl has 1 rows, not 2"),
        (
            ROWS,
            {"params": {"kernel": np.array([-0.0, np.nan, 3.0], np.float32)}},
            "params/kernel has other bits in 1 of 3 numbers",
        ),
        (
            ROWS,
            {"params": {"kernel": np.array([0.0, np.nan, 3.5], np.float32)}},
            "params/kernel has other bits in 1 of 3 numbers",
        ),
        (ROWS, {"params": {"kernel": np.zeros(2, np.float32)}}, "params/kernel is float32[2], not float32[3]"),
        (ROWS, {"params": {"bias": ARRAYS["params"]["kernel"]}}, "only one of them has params/bias"),
    ],
)
def test_the_first_difference_is_named(tmp_path, rows, arrays, difference):
    run, other = finished(tmp_path / "run", rows, arrays), finished(tmp_path / "other", ROWS, ARRAYS)
    assert first_difference(run, other) == difference


def test_the_table_counts_kills_and_lost_steps_by_moment_and_signal():
    kills = [
        Kill(signal.SIGKILL, "saving", reached=21, saved=10),
        Kill(signal.SIGKILL, "saving", reached=34, saved=30),
        Kill(signal.SIGTERM, "training", reached=40, saved=40),
    ]
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(table(Outcome(kills, 1, 1, 1.0, "")))
    lines = [line.replace("│", " ").split() for line in console.export_text().splitlines()]
    assert ["saving", "2", "15", "0", "0"] in lines
    assert ["training", "0", "0", "1", "0"] in lines


EXPERIMENT = """
import micro


def experiment():
    return micro.pretraining(num_steps=200, log_every=10, eval_every=50, save_every=20)
"""


@pytest.mark.slow
def test_an_experiment_survives_its_drill_from_the_command_line(tmp_path):
    """Saved and evaluated so often that it is killed in the middle of that too."""
    (tmp_path / "tiny.py").write_text(EXPERIMENT)
    command = [sys.executable, "-m", "w2v2_jax.cli", "drill", "tiny.py", "--kills", "3", "--workdir", "drill"]
    paths = os.pathsep.join([str(HERE), str(HERE.parent)])
    # One device: a process takes a second to do all of it.
    environment = os.environ | {"PYTHONPATH": paths, "XLA_FLAGS": "", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    # On a machine that has other things to do the run may be over before the last one.
    assert "1/3: SIG" in done.stdout
    assert "equal to those of the unbroken run in every bit" in " ".join(done.stdout.split())
