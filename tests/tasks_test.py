import dataclasses
import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from w2v2_jax.batches import AudioBatch, LabeledBatch, example_keys
from w2v2_jax.context_network import ContextNetwork, PositionalConv, PostNormLayer
from w2v2_jax.data.text import Vocabulary
from w2v2_jax.doctor import diagnose
from w2v2_jax.feature_encoder import FeatureEncoder
from w2v2_jax.masking import MaskSpans
from w2v2_jax.model import CTCModel, PretrainingModel, Wav2Vec2
from w2v2_jax.presets import tiny
from w2v2_jax.quantizer import GumbelQuantizer
from w2v2_jax.tasks import CTCFinetuning, GumbelTemperature, Pretraining

pytestmark = pytest.mark.usefixtures("quick_compilation")

LAYERS = ((8, 10, 5), (8, 3, 2), (12, 2, 2))
EMBED, SAMPLES, CLIPS = 16, 2003, 4
GROUPS, ENTRIES, DISTRACTORS = 2, 20, 30
CONTEXT = ContextNetwork(2, PostNormLayer(2, 24), position=PositionalConv(4, 2), layer_drop=0.01)
ENCODER = Wav2Vec2(FeatureEncoder(LAYERS), CONTEXT, EMBED)
TASK = Pretraining(
    PretrainingModel(ENCODER, GumbelQuantizer(8, GROUPS, ENTRIES)), num_distractors=DISTRACTORS, sub_batch_size=2
)
LENGTHS = np.array([2003, 1500, 900, 2003])


def batch_of(lengths=LENGTHS):
    noise = np.random.default_rng(0).normal(size=(len(lengths), SAMPLES))
    waveform = np.where(np.arange(SAMPLES) < lengths[:, None], noise, 0)
    return AudioBatch(jnp.array(waveform, jnp.float32), jnp.array(lengths))


@functools.cache
def params_of(task):
    """Parameters drawn by numpy, which needs no compilation; not as the task would start."""
    rng = np.random.default_rng(0)
    shapes = nn.unbox(jax.eval_shape(task.init, jax.random.key(0)))
    return jax.tree.map(lambda x: jnp.array(0.3 * rng.normal(size=x.shape), jnp.float32), shapes)


@functools.cache
def compiled(method):
    return jax.jit(method)


compiled_sample = jax.jit(TASK.sample, static_argnums=2)


def sample(lengths=LENGTHS, seed=0, noise_scale=1.0):
    keys = example_keys(jax.random.key(seed), len(lengths))
    return compiled_sample(keys, batch_of(lengths), noise_scale)


def evaluate(task, params, batch, seed=0):
    keys = example_keys(jax.random.key(seed), len(batch.num_samples))
    return {name: float(m.value()) for name, m in compiled(task.evaluate)(params, batch, keys).items()}


@pytest.mark.parametrize(
    ("step", "temperature"), [(0, 2.0), (32_000, 1.704), (100_000, 1.213), (200_000, 0.736), (250_000, 0.573)]
)
def test_gumbel_temperature_falls_by_half_a_part_in_a_hundred_thousand_a_step(step, temperature):
    assert GumbelTemperature()(jnp.int32(step)) == pytest.approx(temperature, abs=5e-4)


@pytest.mark.parametrize(("end", "step"), [(0.5, 277_258), (0.1, 599_145)])
def test_gumbel_temperature_reaches_its_end_at_the_step_that_the_recipe_has(end, step):
    temperature = GumbelTemperature(end=end)
    assert temperature(step) == pytest.approx(end, rel=1e-6)
    assert temperature(step + 100_000) == pytest.approx(end, rel=1e-6)
    assert temperature(step - 1000) == pytest.approx(end * 1.005, rel=1e-4)


def test_what_a_clip_draws_does_not_depend_on_the_rest_of_the_batch():
    for alone, together in zip(sample(LENGTHS[:2]), sample(), strict=True):
        np.testing.assert_array_equal(alone, together[:2])


def test_masks_distractors_and_noise_are_drawn_independently_for_each_clip():
    draws = sample(np.array([2003, 2003]))
    assert all((array[0] != array[1]).any() for array in (draws.masked, draws.distractors, draws.noise))


def test_distractors_are_masked_frames_of_the_same_clip_and_never_the_frame_itself():
    draws = jax.tree.map(np.array, sample())
    for masked, targets, weight, ranks in zip(*draws[:4], strict=True):
        real = weight > 0
        assert real.sum() == masked.sum()
        assert masked[targets[real]].all()
        assert masked[targets[ranks[real]]].all()
        assert (targets[ranks[real]] != targets[real][:, None]).all()


def test_evaluation_has_no_noise_and_follows_from_its_key():
    assert not sample(noise_scale=0.0).noise.any()
    first, again, other = (evaluate(wide(), initial(), batch_of(), seed) for seed in (1, 1, 2))
    assert first == again
    assert first["contrastive_loss"] != other["contrastive_loss"]


@functools.cache
def output(lengths=tuple(LENGTHS)):
    """What the model makes of a batch, and the draws it was given."""
    lengths = np.array(lengths)
    draws = sample(lengths)
    return compiled(TASK.apply)(params_of(TASK), batch_of(lengths), draws, 1.5), draws


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_distractors", 0),
        ("sub_batch_size", 0),
        ("contrastive_temperature", 0.0),
        ("contrastive_temperature", -0.1),
    ],
)
def test_a_task_without_distractors_parts_or_temperature_is_an_error(name, value):
    with pytest.raises(ValueError, match=f"{name}={value}: give"):
        dataclasses.replace(TASK, **{name: value})


ONE_BATCH = dataclasses.replace(TASK, sub_batch_size=math.inf)


def repeated(tree):
    return jax.tree.map(lambda x: jnp.concatenate([x, x]), tree)


def objective_of(task, output, draws):
    return compiled(task.objective)(output, draws)


def test_objective_is_a_sum_over_masked_frames_of_loss_and_weighted_diversity_and_penalty():
    """The diversity loss is multiplied by the number of targets: a mean next to a sum would weigh nothing."""
    total, metrics = objective_of(TASK, *output())
    count = output()[1].masked.sum()
    assert total.weight == count
    terms = {name: metrics[name].value() for name in ("contrastive_loss", "diversity_loss", "feature_penalty")}
    expected = terms["contrastive_loss"] + 0.1 * terms["diversity_loss"] + 10 * terms["feature_penalty"]
    assert total.total == pytest.approx(float(count * expected), rel=1e-5)
    assert metrics["loss"] == total


def test_doubling_the_batch_doubles_the_sum_and_leaves_the_mean():
    once, _ = objective_of(ONE_BATCH, *output())
    twice, _ = objective_of(ONE_BATCH, *repeated(output()))
    assert twice.total == pytest.approx(float(2 * once.total), rel=1e-5)
    assert twice.value() == pytest.approx(float(once.value()), rel=1e-5)


def test_sub_batches_have_codebook_statistics_of_their_own():
    """Each half by itself, weighted by its masked frames, is the whole with two sub-batches."""
    halves = [
        objective_of(ONE_BATCH, *jax.tree.map(lambda x, part=part: x[part], output()))[1]
        for part in (np.s_[:2], np.s_[2:])
    ]
    _, whole = objective_of(TASK, *output())
    for name, mean in whole.items():
        parts = [half[name] for half in halves]
        assert mean.value() == pytest.approx(
            float(sum(p.total for p in parts) / sum(p.weight for p in parts)), rel=1e-5
        )
    assert objective_of(ONE_BATCH, *output())[1]["diversity_loss"].value() < whole["diversity_loss"].value()


def test_objective_does_not_depend_on_the_number_of_devices():
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:4])
    spread = jax.device_put(output(), NamedSharding(mesh, PartitionSpec("data")))
    expected, actual = objective_of(TASK, *output())[1], objective_of(TASK, *spread)[1]
    for name, mean in expected.items():
        assert float(actual[name].value()) == pytest.approx(float(mean.value()), rel=1e-5), name


def test_a_batch_that_does_not_divide_into_the_sub_batches_is_refused():
    with pytest.raises(ValueError, match="a batch of 4 clips can't be cut into sub-batches of 3"):
        dataclasses.replace(TASK, sub_batch_size=3).objective(*output())


def test_rows_that_fill_up_a_batch_count_nowhere():
    filled = output((*LENGTHS[:3], 0))
    _, expected = objective_of(ONE_BATCH, *jax.tree.map(lambda x: x[:3], filled))
    for name, mean in objective_of(ONE_BATCH, *filled)[1].items():
        assert float(mean.value()) == pytest.approx(float(expected[name].value()), rel=1e-5), name


def test_loss_and_gradients_of_base_are_finite_and_reach_every_parameter():
    """Group norm, post-norm layers, dropout, LayerDrop, a filler row: nothing is NaN and nothing is left out."""
    batch = batch_of(np.array([2003, 1500, 900, 0]))

    # With this key no layer is dropped.
    (value, metrics), gradients = wide_value_and_gradients()(initial(), batch, jax.random.key(0))
    assert jnp.isfinite(value)
    assert metrics["gumbel_temperature"].value() == pytest.approx(2 * 0.999995**100)
    for path, gradient in jax.tree_util.tree_leaves_with_path(gradients):
        assert jnp.isfinite(gradient).all(), path
        assert jnp.abs(gradient).max() > 0, path


def array_sizes(jaxpr):
    for equation in jaxpr.eqns:
        yield from (variable.aval.size for variable in equation.outvars)
        inner = (getattr(value, "jaxpr", value) for value in jax.tree.leaves(equation.params))
        yield from (size for program in inner if hasattr(program, "eqns") for size in array_sizes(program))


def test_no_array_of_a_training_step_holds_the_vectors_of_the_distractors():
    """The tiny preset with 100 distractors on 10 s: clips x targets x distractors x dimensions entries would."""
    task = Pretraining(tiny().clone(quantizer=GumbelQuantizer(256, 2, 40)))
    batch = AudioBatch(jax.ShapeDtypeStruct((2, 160_000), jnp.float32), jax.ShapeDtypeStruct((2,), jnp.int32))
    params = nn.unbox(jax.eval_shape(task.init, jax.random.key(0)))
    program = jax.make_jaxpr(
        jax.grad(
            lambda params, batch: task.loss(params, batch, jax.random.split(jax.random.key(0)), jnp.int32(0))[0].total
        )
    )(params, batch)
    targets = task.time_mask.max_masked(task.model.encoder.num_frames(160_000))
    assert max(array_sizes(program.jaxpr)) < 2 * targets * 100 * 256


@functools.cache
def wide():
    """As wide as BASE where the loss is computed, with the paper's 100 distractors."""
    return Pretraining(PretrainingModel(ENCODER, GumbelQuantizer(256)), penalty_weight=0.0)


@functools.cache
def initial():
    """The parameters with which `wide` starts."""
    return nn.unbox(jax.jit(wide().init)(jax.random.key(0)))


@functools.cache
def wide_value_and_gradients():
    def loss(params, batch, key):
        keys = example_keys(key, len(batch.num_samples))
        total, metrics = wide().loss(params, batch, keys, jnp.int32(100))
        return total.value(), metrics

    return jax.jit(jax.value_and_grad(loss, has_aux=True))


def test_loss_of_random_weights_is_near_that_of_guessing_among_101():
    """Not equal: similarities of random vectors spread by about 0.5 / sqrt(256) over a temperature of 0.1, which adds
    half the variance, 0.05, and context and targets see the same audio. Within 3 % of ln(101) = 4.615."""
    metrics = evaluate(wide(), initial(), batch_of())
    assert metrics["contrastive_loss"] == pytest.approx(math.log(101), rel=0.03)
    assert metrics["contrastive_accuracy"] < 0.1


def without(params, *names):
    """Parameters with the kernels of some modules at zero."""
    emptied = {name: params[name] | {"kernel": jnp.zeros_like(params[name]["kernel"])} for name in names}
    return params | emptied


def findings(metrics, grad_norm):
    row = metrics | {"step": 100.0, "grad_norm": grad_norm}
    return [finding.name for finding in diagnose([row])]


def test_a_collapsed_codebook_has_loss_0_accuracy_1_and_a_perplexity_of_one_code_a_group_and_is_diagnosed():
    params = initial()
    logits = {
        "kernel": jnp.zeros_like(params["quantizer"]["logits"]["kernel"]),
        "bias": jnp.zeros((2, 320)).at[:, 7].set(50.0),
    }
    collapsed = params | {"quantizer": params["quantizer"] | {"logits": logits}}
    metrics = evaluate(wide(), collapsed, batch_of())
    assert metrics["contrastive_loss"] == 0
    assert metrics["contrastive_accuracy"] == 1
    assert metrics["code_perplexity"] == pytest.approx(2, rel=1e-4)
    assert metrics["prob_perplexity"] == pytest.approx(2, rel=1e-4)
    assert metrics["diversity_loss"] == pytest.approx(1 - 2 / 640, rel=1e-4)
    assert {"code collapse", "every distractor equals the target"} <= set(findings(metrics, 1.0))


def test_a_dead_network_has_the_loss_of_guessing_a_full_codebook_and_no_gradient_and_is_diagnosed():
    """Context and targets are one vector each, whatever the audio, and every code is equally likely."""
    params = without(initial(), "project_context", "project_quantized")
    ones = {"bias": jnp.ones(256)}
    logits = jax.tree.map(jnp.zeros_like, params["quantizer"]["logits"])
    dead = params | {
        "project_context": params["project_context"] | ones,
        "project_quantized": params["project_quantized"] | ones,
        "quantizer": params["quantizer"] | {"logits": logits},
    }

    (_, metrics), gradients = wide_value_and_gradients()(dead, batch_of(), jax.random.key(0))
    metrics = {name: float(mean.value()) for name, mean in metrics.items()}
    grad_norm = math.sqrt(sum(float((g**2).sum()) for g in jax.tree.leaves(gradients)))
    assert metrics["contrastive_loss"] == pytest.approx(math.log(101), rel=1e-3)
    assert metrics["contrastive_accuracy"] < 0.05
    assert metrics["prob_perplexity"] == pytest.approx(640, rel=1e-3)
    assert grad_norm < 1e-3
    assert "uniform logits" in findings(metrics, grad_norm)


VOCABULARY = Vocabulary(("<s>", "<pad>", "</s>", "<unk>", "|", "A", "B"))
NO_SPANS = MaskSpans(prob=0.0, length=1, min_spans=0)
CTC = CTCFinetuning(CTCModel(ENCODER, len(VOCABULARY)), VOCABULARY, channel_mask=MaskSpans(0.5, 4, 0))


def labeled(num_samples=LENGTHS, num_labels=(6, 3, 4, 2)):
    labels = np.array([[5, 6, 4, 5, 5, 4], [6, 5, 4, 0, 0, 0], [5, 6, 6, 4, 0, 0], [5, 4, 0, 0, 0, 0]])
    return LabeledBatch(*batch_of(num_samples)[:2], jnp.array(labels)[: len(num_samples)], jnp.array(num_labels))


def biased(label):
    """Parameters under which every frame is `label` for sure."""
    params = params_of(CTC)
    head = {"kernel": jnp.zeros_like(params["head"]["kernel"]), "bias": jnp.zeros(len(VOCABULARY)).at[label].set(50.0)}
    return params | {"head": head}


def test_silence_everywhere_misses_every_label_and_every_word():
    metrics = evaluate(CTC, biased(0), labeled())
    assert metrics["label_error_rate"] == 1
    assert metrics["word_error_rate"] == 1
    assert metrics["infeasible"] == 0


def test_phones_are_counted_as_labels_alone():
    phones = Vocabulary(VOCABULARY.symbols, word_end="", separator=" ")
    metrics = evaluate(dataclasses.replace(CTC, vocabulary=phones), biased(5), labeled())
    assert metrics["label_error_rate"] == pytest.approx((15 - 4) / 15)
    assert "word_error_rate" not in metrics


def test_error_rates_count_labels_and_words_over_the_batch():
    """One letter A everywhere: it matches one of 15 labels in each of 4 clips, and no word, for those end in |."""
    metrics = evaluate(CTC, biased(5), labeled())
    assert metrics["label_error_rate"] == pytest.approx((15 - 4) / 15)


def test_ctc_objective_is_a_mean_over_utterances_and_fillers_count_nowhere():
    logits = compiled(CTC.logits)(params_of(CTC), labeled())

    def loss(logits, batch):
        return float(compiled(CTC.objective)(logits, batch)[0].value())

    parts = [loss(*jax.tree.map(lambda x, i=i: x[i : i + 1], (logits, labeled()))) for i in range(4)]
    assert loss(logits, labeled()) == pytest.approx(np.mean(parts), rel=1e-4)
    filled = labeled(np.array([2003, 1500, 900, 0]), (6, 3, 4, 0))
    assert loss(logits, filled) == pytest.approx(np.mean(parts[:3]), rel=1e-4)


def test_training_without_masks_or_dropout_has_the_loss_of_evaluation():
    """And with them another, on the same parameters."""

    def loss(task):
        keys = example_keys(jax.random.key(0), CLIPS)
        return float(jax.jit(task.loss)(params_of(CTC), labeled(), keys, jnp.int32(0))[0].value())

    layer = PostNormLayer(2, 24, dropout=0.0, attention_dropout=0.0)
    context = ENCODER.context_network.clone(layer=layer, dropout=0.0, layer_drop=0.0)
    plain = CTCModel(ENCODER.clone(context_network=context, input_dropout=0.0), len(VOCABULARY))
    evaluated = evaluate(CTC, params_of(CTC), labeled())["loss"]
    assert loss(CTCFinetuning(plain, VOCABULARY, NO_SPANS, NO_SPANS)) == pytest.approx(evaluated, rel=1e-5)
    assert abs(loss(CTCFinetuning(plain, VOCABULARY, CTC.time_mask, CTC.channel_mask)) - evaluated) > 1e-3


def test_a_fine_tuned_encoder_has_the_parameters_of_the_pretrained_one():
    pretrained, fine_tuned = (jax.tree.map(jnp.shape, params_of(task)["encoder"]) for task in (TASK, CTC))
    assert pretrained == fine_tuned
