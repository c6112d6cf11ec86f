import dataclasses
import importlib
from pathlib import Path

import jax
import pytest
from flax import linen as nn

from experiments.pretrain import base_960h, large_960h, large_lv60
from w2v2_jax.description import build, describe
from w2v2_jax.tasks import Pretraining

ROOT = Path(__file__).parent.parent
FILES = sorted(path for path in (ROOT / "experiments").rglob("*.py") if "def experiment(" in path.read_text())
NAMES = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in FILES]


@pytest.fixture(params=NAMES)
def module(request):
    return importlib.import_module(request.param)


def test_every_experiment_can_be_stored_in_a_checkpoint_and_built_again(module):
    experiment = module.experiment()
    assert build(describe(experiment)) == experiment


def test_every_experiment_names_the_command_that_runs_it(module):
    assert f"w2v2 train {module.__name__}" in module.__doc__


def test_the_parameters_of_every_experiment_fit_its_optimizer(module):
    experiment = module.experiment()
    params = nn.unbox(jax.eval_shape(experiment.task.init, jax.random.key(0)))
    optimizer = experiment.optimizer.transformation(experiment.num_steps)
    jax.eval_shape(optimizer.init, params)


@pytest.mark.parametrize("recipe", [base_960h, large_960h, large_lv60])
def test_a_pretraining_batch_divides_into_its_sub_batches(recipe):
    experiment = recipe.experiment()
    assert isinstance(experiment.task, Pretraining)
    assert experiment.train_data.batch_size % experiment.task.num_sub_batches == 0


@pytest.mark.parametrize(
    ("recipe", "num_samples"),
    [(base_960h, 64 * 5 * 250_000), (large_960h, 128 * 3 * 320_000), (large_lv60, 128 * 3 * 320_000)],
)
def test_a_pretraining_batch_holds_the_papers_crops(recipe, num_samples):
    clips = recipe.experiment().train_data
    assert clips.batch_size * clips.num_samples == num_samples


@pytest.mark.parametrize("name", [name for name in NAMES if "finetune.base_" in name or "finetune.large_" in name])
def test_fine_tuning_starts_from_the_encoder_that_pretraining_leaves(name):
    experiment = importlib.import_module(name).experiment()
    pretraining = {"base": base_960h, "large": large_lv60}[experiment.name.split("_")[0]].experiment()
    shapes = [
        jax.tree.map(lambda x: x.shape, nn.unbox(jax.eval_shape(task.init, jax.random.key(0))["encoder"]))
        for task in (experiment.task, pretraining.task)
    ]
    assert shapes[0] == shapes[1]
    assert experiment.train_data.normalise == pretraining.train_data.normalise


def test_the_two_runs_of_a_comparison_differ_in_where_they_start_alone():
    for folder in ("demo", "asterisk"):
        finetune, scratch = (
            importlib.import_module(f"experiments.{folder}.{name}").experiment() for name in ("finetune", "scratch")
        )
        assert dataclasses.replace(scratch, name=finetune.name, init_from=finetune.init_from) == finetune
