import sys

import pytest

from w2v2_jax.experiment_files import UnknownExperimentError, load_experiment

FILE = """
import dataclasses
import micro

def experiment():
    return dataclasses.replace(micro.finetuning(), name="{name}")
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


def test_a_file_is_found_by_its_path_and_may_import_its_neighbour(folder):
    (folder / "first_of_two.py").write_text(FILE.format(name="first"))
    (folder / "second_of_two.py").write_text("from first_of_two import experiment")
    assert load_experiment(str(folder / "second_of_two.py")).name == "first"


def test_a_module_is_found_by_its_dotted_name(folder):
    (folder / "dotted_package").mkdir()
    (folder / "dotted_package" / "larger.py").write_text(FILE.format(name="larger"))
    sys.path.append(str(folder))
    assert load_experiment("dotted_package.larger").name == "larger"


@pytest.mark.parametrize(
    "name", ["experiments.pretrain.base_906h", "experiment.pretrain.base_960", "pretrain.base960h"]
)
def test_an_unknown_module_is_an_error_that_names_the_nearest(name):
    with pytest.raises(
        UnknownExperimentError, match=f"no experiment {name}; did you mean experiments.pretrain.base_960h?"
    ):
        load_experiment(name)


def test_an_unknown_file_is_an_error_that_names_the_nearest_beside_it(folder):
    (folder / "larger.py").write_text(FILE)
    (folder / "other.py").write_text(FILE)
    with pytest.raises(UnknownExperimentError, match=r"no experiment .*/lager\.py; did you mean .*/larger\.py\?"):
        load_experiment(str(folder / "lager.py"))


@pytest.mark.parametrize("name", ["larger", "./larger", "../mine/larger", ".larger", "lager/", "."])
def test_a_path_without_its_suffix_or_of_a_folder_is_an_error_that_names_the_file(folder, monkeypatch, name):
    (folder / "mine").mkdir()
    (folder / "mine" / "__init__.py").touch()
    (folder / "mine" / "larger.py").write_text(FILE)
    monkeypatch.chdir(folder / "mine")
    name = str(folder / "mine" / name) if name == "larger" else name
    with pytest.raises(UnknownExperimentError, match=r"there is no experiment .*; did you mean .*larger\.py\?"):
        load_experiment(name)


def test_a_file_of_another_kind_is_an_error_that_names_the_nearest(folder):
    (folder / "larger.py").write_text(FILE)
    (folder / "larger.txt").write_text(FILE)
    with pytest.raises(UnknownExperimentError, match=r"no experiment .*/larger\.txt; did you mean .*/larger\.py\?"):
        load_experiment(str(folder / "larger.txt"))


def test_what_an_experiment_imports_in_vain_is_not_taken_for_the_experiment(folder):
    (folder / "importing.py").write_text("import nowhere_to_be_found")
    with pytest.raises(ModuleNotFoundError, match="nowhere_to_be_found"):
        load_experiment(str(folder / "importing.py"))


@pytest.mark.parametrize(
    ("stem", "text"),
    [("empty_file", ""), ("other_kind", "def experiment():\n    return 3"), ("constant", "experiment = 3")],
)
def test_a_file_that_gives_no_experiment_is_an_error(folder, stem, text):
    (folder / f"{stem}.py").write_text(text)
    with pytest.raises(ValueError, match=r"should define a function experiment\(\) that returns"):
        load_experiment(str(folder / f"{stem}.py"))


def test_a_file_named_as_a_module_that_is_loaded_is_an_error(folder):
    (folder / "json.py").write_text(FILE)
    with pytest.raises(ValueError, match="has the name of another module, json; give the file another name"):
        load_experiment(str(folder / "json.py"))
