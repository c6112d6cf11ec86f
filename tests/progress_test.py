import io

import pytest
import rich.console

from w2v2_jax import progress as module
from w2v2_jax.progress import progress


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_a_log_gets_one_line_an_update_with_the_time_left_at_the_pace_of_this_run(clock, capsys):
    with progress(total=1000, start=400) as shown:
        clock[0] = 60
        shown.update(500, {"loss": 6.6577, "hours/s": 1.25})
    assert capsys.readouterr().err == "step 500/1000  loss 6.658  hours/s 1.25  left 0:05:00\n"


def test_before_the_first_update_the_time_left_is_unknown(clock, capsys):
    progress(total=10).update(0, {})
    assert capsys.readouterr().err == "step 0/10  left ?\n"


def test_quiet_says_nothing(capsys):
    with progress(total=10, quiet=True) as shown:
        shown.update(5, {"loss": 1.0})
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_the_same_values_beside_a_bar(clock, monkeypatch):
    terminal = io.StringIO()
    make = rich.console.Console
    monkeypatch.setattr(
        module.rich.console, "Console", lambda stderr: make(file=terminal, force_terminal=True, width=100)
    )
    with progress(total=100) as shown:
        clock[0] = 10
        shown.update(50, {"loss": 6.6577})
    assert all(part in terminal.getvalue() for part in ["━", "50/100", "loss 6.658", "left 0:00:10"])
