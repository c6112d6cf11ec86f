import jax
import pytest

from w2v2_jax import processes
from w2v2_jax.processes import ADDRESS, COUNT, INDEX, DisagreementError, check_agreement, gathered, meet


@pytest.fixture
def started(monkeypatch):
    """What JAX is asked to start."""
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *given: calls.append(given))
    for name in (ADDRESS, COUNT, INDEX):
        monkeypatch.delenv(name, raising=False)
    return calls


def test_a_pod_needs_no_arguments(started):
    meet()
    assert started == [()]


def test_elsewhere_the_environment_says_who_and_where(started, monkeypatch):
    for name, value in ((ADDRESS, "host-0:1234"), (COUNT, "16"), (INDEX, "3")):
        monkeypatch.setenv(name, value)
    meet()
    assert started == [("host-0:1234", 16, 3)]


def test_half_of_the_variables_is_an_error_that_names_all(started, monkeypatch):
    monkeypatch.setenv(COUNT, "4")
    with pytest.raises(ValueError, match=f"only {COUNT} of {ADDRESS}, {COUNT} and {INDEX} are set; set all three"):
        meet()
    assert not started


def test_a_count_that_is_no_number_is_an_error(started, monkeypatch):
    for name, value in ((ADDRESS, "host-0:1234"), (COUNT, "two"), (INDEX, "0")):
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=f"{COUNT}='two' is not a number"):
        meet()


def test_one_process_agrees_with_itself():
    assert gathered({"ä": [1, 2]}) == [{"ä": [1, 2]}]
    check_agreement({"data": {"utterances": 3}})


def test_processes_that_differ_are_told_in_what(monkeypatch):
    monkeypatch.setattr(processes, "gathered", lambda value: [value, value, other(value)])

    def other(value):
        return value | {"data": "another digest"} if "seed" in value else {"utterances": 4}

    with pytest.raises(
        DisagreementError, match=r'process 2 has another data .*"utterances": 4} against {"utterances": 3}'
    ):
        check_agreement({"seed": 0, "data": {"utterances": 3}})
