import importlib
import re
import shlex
from pathlib import Path

import pytest

from w2v2_jax.cli import main
from w2v2_jax.train import Experiment

README = (Path(__file__).parent.parent / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
COMMANDS = [line.split("#")[0].strip() for line in re.findall(r"^w2v2 .*$", README, re.MULTILINE)]


def test_the_fork_of_the_readme_is_an_experiment():
    [fork] = [code for code in PYTHON if "def experiment" in code]
    names = {}
    exec(fork, names)
    experiment = names["experiment"]()
    assert isinstance(experiment, Experiment)
    assert experiment.task.model.quantizer.num_groups == 4


@pytest.mark.parametrize("code", PYTHON)
def test_what_the_readme_imports_is_there(code):
    for module, name in re.findall(r"^from (\S+) import (\w+)$", code, re.MULTILINE):
        assert hasattr(importlib.import_module(module), name) or importlib.import_module(f"{module}.{name}")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_readme_exists(command, capsys):
    with pytest.raises(SystemExit) as left:
        main([shlex.split(command)[1], "--help"])
    assert left.value.code == 0
    assert "usage: w2v2" in capsys.readouterr().out


@pytest.mark.parametrize("name", re.findall(r"w2v2 train (experiments\.\S+)", README))
def test_every_experiment_of_the_readme_exists(name):
    assert isinstance(importlib.import_module(name).experiment(), Experiment)


def test_every_file_of_the_readme_exists():
    for target in re.findall(r"\]\(([^)h][^)]*)\)", README):
        assert (Path(__file__).parent.parent / target).exists()
