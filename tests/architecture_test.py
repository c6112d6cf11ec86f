import ast
import graphlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = "w2v2_jax"
ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / PACKAGE).rglob("*.py"))

# A file imports from higher up in this table, or from its own folder; nothing imports in a circle.
LEVELS = (
    {"frames"},
    {"batches", "masking", "losses", "ctc", "edit_distance", "metrics", "optimizers", "disk"}
    | {"fused_attention", "random_bytes"},
    {
        "layers",
        "overrides",
        "description",
        "progress",
        "checkpoints",
        "sharding",
        "processes",
        "preemption",
        "doctor",
        "data",
        "parts",
    },
    {"decoding"},
    {"feature_encoder", "attention", "quantizer", "adaptive_softmax"},
    {"context_network"},
    {"conformer"},
    {"model", "language_model"},
    {"presets", "heads", "tasks", "language_task", "analysis"},
    {"convert"},
    {"experiment", "pretrained"},
    {"step"},
    {"train"},
    {"recognition", "warm_start", "conversion", "language_scorer"},
    {"experiment_files", "evaluation", "aligning", "drill", "planning", "preflight"},
    {"demo"},
    {"commands"},
    {"cli"},
)
"""Where a file or folder of the package stands."""


def module_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path): path for path in FILES}


def imports_of(path):
    """The modules of the package that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found.update(name if name in MODULES else node.module for name in names)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    return found & MODULES.keys()


IMPORTS = {module: imports_of(path) for module, path in MODULES.items()}


def place_of(module):
    return f"{module}.".split(".")[1]


def level_of(module):
    [level] = [level for level, places in enumerate(LEVELS) if place_of(module) in places]
    return level


def reached_from(module):
    found, new = set(), {module}
    while new:
        found |= new
        new = set().union(*(IMPORTS[each] for each in new)) - found
    return found


def test_every_folder_is_a_package():
    """Else it would be left out of what pip installs."""
    folders = {path.parent for name in (PACKAGE, "experiments") for path in (ROOT / name).rglob("*.py")}
    assert all((folder / "__init__.py").exists() for folder in folders)


def test_every_file_has_its_place():
    places = {place_of(module) for module in MODULES} - {""}
    assert places <= set().union(*LEVELS)
    assert sum(map(len, LEVELS)) == len(set().union(*LEVELS))


@pytest.mark.parametrize("module", sorted(MODULES.keys() - {PACKAGE}))
def test_imports_go_one_way(module):
    wrong = [
        other
        for other in IMPORTS[module]
        if place_of(other) != place_of(module) and level_of(other) >= level_of(module)
    ]
    assert not wrong


def test_nothing_imports_in_a_circle():
    assert {*graphlib.TopologicalSorter(IMPORTS).static_order()} == MODULES.keys()


def test_training_knows_neither_models_nor_tasks():
    places = {place_of(module) for module in reached_from(f"{PACKAGE}.train")}
    not_needed = {"layers", "random_bytes", "losses", "masking", "ctc", "decoding", "doctor"}
    assert places <= {"train", "step", "experiment"}.union(*LEVELS[:3]) - not_needed


def test_maths_stands_alone():
    for name in (
        "frames",
        "masking",
        "losses",
        "random_bytes",
        "ctc",
        "edit_distance",
        "overrides",
        "metrics",
        "optimizers",
    ):
        assert not IMPORTS[f"{PACKAGE}.{name}"]


def without_docstring(path):
    """Names of what is public in a file and has no docstring; a method may have it from a base class of the file."""
    tree = ast.parse(path.read_text())
    if not ast.get_docstring(tree) and tree.body:
        yield "the file itself"
    documented = {}
    for node in tree.body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef):
            continue
        if not node.name.startswith("_") and not ast.get_docstring(node):
            yield node.name
        if isinstance(node, ast.ClassDef):
            methods = [each for each in node.body if isinstance(each, ast.FunctionDef)]
            inherited = set().union(*(documented.get(ast.unparse(base), set()) for base in node.bases))
            documented[node.name] = inherited | {each.name for each in methods if ast.get_docstring(each)}
            if not node.name.startswith("_"):
                public = {each.name for each in methods if not each.name.startswith("_")}
                yield from (f"{node.name}.{name}" for name in sorted(public - documented[node.name]))


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_everything_public_has_a_docstring(path):
    assert list(without_docstring(path)) == []


def test_training_and_the_command_line_import_neither_tensorflow_nor_torch():
    code = (
        "import json, sys, w2v2_jax.cli, w2v2_jax.train, w2v2_jax.tasks, w2v2_jax.data.pipeline, w2v2_jax.recognition;"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"tensorflow", "torch", "transformers"} & set(json.loads(answer.stdout))
