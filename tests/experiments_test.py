import dataclasses
import importlib
from operator import attrgetter
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import pytest
from flax import linen as nn

from experiments.finetune import timit
from experiments.multilingual import xls_r_300m, xls_r_300m_mls_de_10h, xlsr_53
from experiments.pretrain import (
    base_960h,
    base_960h_8_chips,
    large_960h,
    large_960h_8_chips,
    large_lv60,
    large_lv60_paper,
)
from w2v2_jax.context_network import PostNormLayer, PreNormLayer
from w2v2_jax.description import build, describe
from w2v2_jax.feature_encoder import GroupNormConv, LayerNormConv
from w2v2_jax.optimizers import Freeze, PolynomialDecay, TriStage
from w2v2_jax.step import micro_batches
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
    state = jax.eval_shape(optimizer.init, params)
    updates, _ = jax.eval_shape(optimizer.update, params, state, params)
    assert jax.eval_shape(optax.apply_updates, params, updates) == params


CONTEXT = "task.model.encoder.context_network"

# Of the paper's section 4.2 and of fairseq's files, which decide for all but the second: BASE and LARGE on LibriSpeech,
# LARGE on Libri-Light as released and as in the command of 2020.
PRETRAINING = {
    "num_steps": (400_000, 250_000, 1_000_000, 600_000),
    "optimizer.schedule.__class__": (PolynomialDecay,) * 4,
    "optimizer.schedule.peak": (5e-4, 3e-4, 5e-3, 3e-4),
    "optimizer.schedule.warmup_steps": (32_000, 20_000, 32_000, 32_000),
    "optimizer.b1": (0.9,) * 4,
    "optimizer.b2": (0.98,) * 4,
    "optimizer.eps": (1e-6,) * 4,
    "optimizer.weight_decay": (0.01,) * 4,
    "optimizer.freezes": ((),) * 4,
    "train_data.num_samples": (250_000, 320_000, 320_000, 320_000),
    "train_data.min_samples": (32_000,) * 4,
    "train_data.normalise": (False, False, True, False),
    "train_data.batch_size": (64 * 5, 128 * 3, 128 * 3, 128 * 3),
    "task.sub_batch_size": (5, 3, 3, 3),
    "task.time_mask.prob": (0.65,) * 4,
    "task.time_mask.length": (10,) * 4,
    "task.time_mask.min_spans": (2,) * 4,
    "task.num_distractors": (100,) * 4,
    "task.contrastive_temperature": (0.1,) * 4,
    "task.gumbel_temperature.start": (2.0,) * 4,
    "task.gumbel_temperature.end": (0.5, 0.1, 0.1, 0.1),
    "task.gumbel_temperature.decay": (0.999995,) * 4,
    "task.diversity_weight": (0.1,) * 4,
    "task.penalty_weight": (10.0, 10.0, 0.0, 10.0),
    "task.model.quantizer.num_groups": (2,) * 4,
    "task.model.quantizer.num_entries": (320,) * 4,
    "task.model.quantizer.dim": (256, 768, 768, 768),
    "task.model.feature_dropout": (0.1, 0.1, 0.0, 0.1),
    "task.model.encoder.feature_encoder.first": (GroupNormConv, GroupNormConv, LayerNormConv, GroupNormConv),
    "task.model.encoder.feature_gradient_scale": (0.1, 0.1, 1.0, 0.03),
    "task.model.encoder.input_dropout": (0.1, 0.1, 0.0, 0.1),
    "task.model.encoder.embed_dim": (768, 1024, 1024, 1024),
    f"{CONTEXT}.num_layers": (12, 24, 24, 24),
    f"{CONTEXT}.layer_drop": (0.05, 0.2, 0.0, 0.0),
    f"{CONTEXT}.dropout": (0.1, 0.1, 0.0, 0.0),
    f"{CONTEXT}.layer.__class__": (PostNormLayer, PostNormLayer, PreNormLayer, PostNormLayer),
    f"{CONTEXT}.layer.ffn_dim": (3072, 4096, 4096, 4096),
    f"{CONTEXT}.layer.num_heads": (12, 16, 16, 16),
    f"{CONTEXT}.layer.dropout": (0.1, 0.1, 0.0, 0.0),
    f"{CONTEXT}.layer.attention_dropout": (0.1, 0.1, 0.0, 0.1),
    f"{CONTEXT}.layer.activation_dropout": (0.0,) * 4,
}


@pytest.mark.parametrize("setting", PRETRAINING)
def test_pretraining_recipes_have_the_published_values(setting):
    recipes = (base_960h, large_960h, large_lv60, large_lv60_paper)
    assert tuple(attrgetter(setting)(recipe.experiment()) for recipe in recipes) == PRETRAINING[setting]


AMOUNTS = ("10min", "1h", "10h", "100h", "960h")
THAWS = {updates: (Freeze("encoder", updates),) for updates in (0, 10_000)}

# fairseq's ten files: for each amount of transcripts, with BASE and with LARGE of Libri-Light. Batches are samples of
# a GPU times GPUs times accumulated steps.
FINE_TUNING = {
    "num_steps": ((13_000, 13_000, 20_000, 80_000, 320_000),) * 2,
    "optimizer.schedule.peak": ((5e-5, 5e-5, 5e-5, 3e-5, 1e-4), (1e-4, 3e-4, 1e-4, 3e-5, 3e-5)),
    "optimizer.freezes": (
        tuple(THAWS[updates] for updates in (10_000, 10_000, 10_000, 0, 0)),
        (THAWS[10_000],) * 5,
    ),
    "task.time_mask.prob": ((0.65, 0.65, 0.65, 0.65, 0.5), (0.65, 0.75, 0.75, 0.5, 0.5)),
    "task.channel_mask.prob": ((0.25, 0.25, 0.5, 0.5, 0.1), (0.25, 0.25, 0.25, 0.5, 0.25)),
    f"{CONTEXT}.layer_drop": ((0.1, 0.1, 0.05, 0.1, 0.1), (0.1,) * 5),
    "train_data.buckets.samples_per_batch": (
        (3_200_000 * 2 * 4,) * 5,
        (*(1_280_000 * 4 * 5,) * 4, 1_280_000 * 24),
    ),
    "train_data.normalise": ((False,) * 5, (True,) * 5),
}
SAME_IN_FINE_TUNING = {
    "optimizer.schedule.__class__": TriStage,
    "optimizer.schedule.phase_ratio": (0.1, 0.4, 0.5),
    "optimizer.schedule.init_scale": 0.01,
    "optimizer.schedule.final_scale": 0.05,
    "optimizer.b1": 0.9,
    "optimizer.b2": 0.98,
    "optimizer.eps": 1e-8,
    "optimizer.weight_decay": 0.0,
    "task.time_mask.length": 10,
    "task.time_mask.min_spans": 2,
    "task.channel_mask.length": 64,
    "task.channel_mask.min_spans": 0,
    "task.model.num_labels": 32,
    "task.model.output_dropout": 0.0,
    "task.model.encoder.input_dropout": 0.0,
    "task.model.encoder.feature_gradient_scale": 0.0,
    f"{CONTEXT}.dropout": 0.0,
    f"{CONTEXT}.layer.dropout": 0.0,
    f"{CONTEXT}.layer.attention_dropout": 0.0,
    f"{CONTEXT}.layer.activation_dropout": 0.1,
}


@pytest.mark.parametrize("setting", [*FINE_TUNING, *SAME_IN_FINE_TUNING])
def test_fine_tuning_recipes_have_the_published_values(setting):
    expected = FINE_TUNING.get(setting) or ((SAME_IN_FINE_TUNING[setting],) * 5,) * 2
    for model, values in zip(("base", "large_lv60"), expected, strict=True):
        recipes = [importlib.import_module(f"experiments.finetune.{model}_{amount}") for amount in AMOUNTS]
        assert tuple(attrgetter(setting)(recipe.experiment()) for recipe in recipes) == values, model


SMALLER = {"base": (base_960h, base_960h_8_chips), "large": (large_960h, large_960h_8_chips)}


@pytest.mark.parametrize("size", SMALLER)
def test_on_8_chips_a_recipe_is_the_same_but_for_how_the_work_is_cut(size):
    whole, cut = (module.experiment() for module in SMALLER[size])
    how = {name: getattr(whole, name) for name in ("name", "accumulation_steps", "mesh")}
    assert dataclasses.replace(cut, **how) == whole
    task, parts = whole.task, cut.accumulation_steps
    clips = jax.eval_shape(lambda: micro_batches(jnp.zeros(whole.train_data.batch_size), parts, task.rows_together))
    assert clips.shape[1] % 8 == 0


@pytest.mark.parametrize("recipe", [base_960h, large_960h, large_lv60])
def test_a_pretraining_batch_divides_into_its_sub_batches(recipe):
    experiment = recipe.experiment()
    assert isinstance(experiment.task, Pretraining)
    assert experiment.train_data.batch_size % experiment.task.sub_batch_size == 0


@pytest.mark.parametrize(
    ("recipe", "num_samples"),
    [(base_960h, 64 * 5 * 250_000), (large_960h, 128 * 3 * 320_000), (large_lv60, 128 * 3 * 320_000)],
)
def test_a_pretraining_batch_holds_the_papers_crops(recipe, num_samples):
    clips = recipe.experiment().train_data
    assert clips.batch_size * clips.num_samples == num_samples


PRETRAINED = {"base": base_960h, "large": large_lv60, "timit": large_960h}


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("experiments.finetune.")])
def test_fine_tuning_starts_from_the_encoder_that_pretraining_leaves(name):
    experiment = importlib.import_module(name).experiment()
    pretraining = PRETRAINED[experiment.name.split("_")[0]].experiment()
    assert experiment.init_from.path == f"runs/{pretraining.name}"
    shapes = [
        jax.tree.map(lambda x: x.shape, nn.unbox(jax.eval_shape(task.init, jax.random.key(0))["encoder"]))
        for task in (experiment.task, pretraining.task)
    ]
    assert shapes[0] == shapes[1]
    assert experiment.train_data.normalise == pretraining.train_data.normalise


def test_timits_masks_are_the_papers():
    """Table 6: probabilities of a frame and of a channel, times the length of their spans."""
    task = timit.experiment().task
    for mask, share, length in ((task.time_mask, 0.065, 10), (task.channel_mask, 0.012, 64)):
        assert mask.length == length
        assert mask.prob == pytest.approx(share * length)
    assert task.model.num_labels == len(task.vocabulary) == 39 + 4


def test_xlsr_53_is_large_lv60_with_a_lower_rate_and_languages_by_the_root_of_their_hours():
    xlsr, lv60 = xlsr_53.experiment(), large_lv60.experiment()
    assert xlsr.optimizer.schedule.peak == 1e-3
    assert xlsr.train_data.source.shares.alpha == 0.5
    optimizer = dataclasses.replace(xlsr.optimizer.schedule, peak=lv60.optimizer.schedule.peak)
    same = {
        "name": lv60.name,
        "optimizer": dataclasses.replace(xlsr.optimizer, schedule=optimizer),
        "train_data": dataclasses.replace(xlsr.train_data, source=lv60.train_data.source),
        "valid_data": lv60.valid_data,
    }
    assert dataclasses.replace(xlsr, **same) == lv60


def test_xls_r_shares_by_corpora_and_then_by_languages():
    mixture = xls_r_300m.experiment().train_data.source
    assert [source.source.name for source in mixture.sources] == [
        "voxpopuli", "mls", "common_voice", "voxlingua107", "babel"
    ]  # fmt: skip
    assert {mixture.shares.alpha, *(source.shares.alpha for source in mixture.sources)} == {0.5}


def test_xls_r_is_fine_tuned_by_fairseqs_file():
    """finetune.yaml: 4 GPUs of 1.28M samples, 5 steps together."""
    experiment = xls_r_300m_mls_de_10h.experiment()
    found = {
        "train_data.buckets.samples_per_batch": 4 * 5 * 1_280_000,
        "optimizer.schedule.peak": 3e-4,
        "optimizer.schedule.phase_ratio": (0.1, 0.4, 0.5),
        "optimizer.schedule.final_scale": 0.05,
        "optimizer.freezes": THAWS[10_000],
        "num_steps": 20_000,
        "task.time_mask.prob": 0.75,
        "task.channel_mask.prob": 0.25,
        "task.channel_mask.length": 64,
        f"{CONTEXT}.layer_drop": 0.1,
        f"{CONTEXT}.layer.activation_dropout": 0.1,
        "train_data.normalise": True,
    }
    assert {setting: attrgetter(setting)(experiment) for setting in found} == found
    assert len(experiment.task.vocabulary) == experiment.task.model.num_labels
    assert not set("abcdefghijklmnopqrstuvwxyzäöüß'-").difference(experiment.task.vocabulary.symbols)
    assert experiment.init_from.path == f"runs/{xls_r_300m.experiment().name}"


def test_the_two_runs_of_a_comparison_differ_in_where_they_start_alone():
    for folder in ("demo", "asterisk"):
        finetune, scratch = (
            importlib.import_module(f"experiments.{folder}.{name}").experiment() for name in ("finetune", "scratch")
        )
        assert dataclasses.replace(scratch, name=finetune.name, init_from=finetune.init_from) == finetune
