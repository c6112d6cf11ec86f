import ast
import importlib
import re
import shlex
from pathlib import Path

import pytest

from w2v2_jax import demo
from w2v2_jax.cli import make_parser
from w2v2_jax.commands import corpora
from w2v2_jax.experiment import Experiment

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
HEADERS = {path: ast.get_docstring(ast.parse(path.read_text())) or "" for path in (ROOT / "experiments").rglob("*.py")}


def commands_in(text):
    """What `w2v2` is told wherever a text writes it as code: up to the end of that, another command or a remark.

    Code starts a line, stands in backticks, or follows "&&", a colon or the spaces between two columns.
    """
    return [command.strip() for command in re.findall(r"(?:^|`|&& |: |  )w2v2 ([^\n`&#\"]+)", text, re.MULTILINE)]


def parsed(command):
    return make_parser().parse_args(shlex.split(command))


# Of the other pages what is to be typed: their sentences name commands without all that these need.
TYPED = re.compile(r"^```bash\n.*?^```|^\|[^\n]*", re.DOTALL | re.MULTILINE)
PAGES = ["\n".join(TYPED.findall(page.read_text())) for page in (ROOT / "docs").glob("*.md")]
COMMANDS = sorted({command for text in (README, *PAGES, *HEADERS.values()) for command in commands_in(text)})


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
def test_every_command_of_the_pages_and_of_an_experiment_is_one_with_its_options(command):
    assert callable(parsed(command).command)


def test_commands_are_found_in_code_and_in_sentences():
    text = (
        "x: w2v2 a b\nrun `w2v2 c` or w2v2 itself\npip install x && w2v2 d --e 1   # f\nw2v2 g && w2v2 h\nData  w2v2 i"
    )
    assert commands_in(text) == ["a b", "c", "d --e 1", "g", "h", "i"]
    assert len(commands_in(README)) > 10


@pytest.mark.parametrize("folder", ["demo", "asterisk"])
def test_the_corpus_that_a_header_prepares_is_the_one_that_is_trained_on(folder):
    headers = {path: header for path, header in HEADERS.items() if path.parent.name == folder}
    prepared = {source_of(command).name for header in headers.values() for command in prepare_commands(header)}
    modules = [importlib.import_module(f"experiments.{folder}.{path.stem}") for path in headers]
    experiments = [module.experiment() for module in modules if hasattr(module, "experiment")]
    assert prepared == {experiment.train_data.source.name for experiment in experiments}


def test_the_corpus_of_the_demo_is_prepared_as_the_demo_does():
    [command] = prepare_commands(HEADERS[ROOT / "experiments" / "demo" / "pretrain.py"])
    assert source_of(command) == demo._corpus(demo.FULL)


def prepare_commands(header):
    return [command for command in commands_in(header) if command.startswith("prepare ")]


def source_of(command):
    options = parsed(command)
    options.fetch = False
    return corpora.source_of(options)


@pytest.mark.parametrize("name", re.findall(r"w2v2 train (experiments\.\S+)", README))
def test_every_experiment_of_the_readme_exists(name):
    assert isinstance(importlib.import_module(name).experiment(), Experiment)


def test_every_file_of_the_readme_exists():
    for target in re.findall(r"\]\(([^)h][^)]*)\)", README):
        assert (ROOT / target).exists()
