"""Finding the file of an experiment, by its dotted name or its path."""

import difflib
import importlib
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from w2v2_jax.experiment import Experiment

PACKAGE = "experiments"
"""Where a name is looked for that isn't there, to say what was meant."""


class UnknownExperimentError(ValueError):
    """There is no such experiment; the message names the nearest one."""


def load_experiment(name: str) -> Experiment:
    """What `experiment()` returns in a module ("experiments.pretrain.base_960h") or a file ("mine/larger.py").

    A file is imported under its own name, and its folder is on the path from then on, so that it can import its
    neighbours and checkpoints can find what it defines.

    Raises:
        UnknownExperimentError: where there is no such module or file.
        ValueError: for a file without a function `experiment()` that returns an `Experiment`.
    """
    module = _import_file(Path(name)) if _is_path(name) else _import_module(name)
    function = getattr(module, "experiment", None)
    experiment = function() if callable(function) else None
    if not isinstance(experiment, Experiment):
        raise ValueError(f"{name} should define a function experiment() that returns a w2v2_jax.experiment.Experiment")
    return experiment


def _is_path(name: str) -> bool:
    return name.endswith(".py") or name.startswith(".") or "/" in name


def _import_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # A module that the experiment itself imports in vain is another matter.
        if error.name and f"{name}.".startswith(f"{error.name}."):
            raise UnknownExperimentError(_unknown(name, _known_modules())) from error
        raise


def _import_file(path: Path) -> ModuleType:
    if path.suffix != ".py" or not path.is_file():
        raise UnknownExperimentError(_unknown(str(path), _known_files(path)))
    sys.path.insert(0, str(path.parent.resolve()))
    module = importlib.import_module(path.stem)
    if Path(module.__file__ or "") != path.resolve():
        raise ValueError(f"{path} has the name of another module, {module.__name__}; give the file another name")
    return module


def _known_files(path: Path) -> list[str]:
    """The files in the folder that a path is, or else in the folder that it is in."""
    folder = path if path.is_dir() else path.parent
    return [str(file) for file in sorted(folder.glob("*.py")) if file.name != "__init__.py"]


def _known_modules() -> list[str]:
    spec = importlib.util.find_spec(PACKAGE)
    roots = [Path(root) for root in spec.submodule_search_locations or ()] if spec else []
    files = [file.relative_to(root.parent) for root in roots for file in sorted(root.rglob("*.py"))]
    return [".".join(file.with_suffix("").parts) for file in files if file.name != "__init__.py"]


def _unknown(name: str, known: Sequence[str]) -> str:
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0)
    hint = f"did you mean {nearest[0]}?" if nearest else "give a module such as experiments.finetune.mine or a .py file"
    return f"there is no experiment {name}; {hint}"
