"""Parity with transformers on PyTorch and, where that departs from fairseq, with a replay of the recipe in torch.

All is in float32 on the CPU with random weights; what training draws at random is frozen and given to both sides.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from w2v2_jax.batches import AudioBatch, LabeledBatch  # noqa: E402
from w2v2_jax.context_network import ContextNetwork, PositionalConv, PostNormLayer, PreNormLayer  # noqa: E402
from w2v2_jax.data.text import Vocabulary  # noqa: E402
from w2v2_jax.feature_encoder import FairseqGroupNormConv, FeatureEncoder, GroupNormConv, LayerNormConv  # noqa: E402
from w2v2_jax.layers import Identity, LayerNorm  # noqa: E402
from w2v2_jax.model import CTCModel, PretrainingModel, Wav2Vec2  # noqa: E402
from w2v2_jax.presets import base  # noqa: E402
from w2v2_jax.quantizer import GumbelQuantizer  # noqa: E402
from w2v2_jax.tasks import CTCFinetuning, Draws, Pretraining  # noqa: E402

pytestmark = pytest.mark.usefixtures("quick_compilation")

CONV_LAYERS = ((16, 10, 5), *((16, 3, 2),) * 4, *((24, 2, 2),) * 2)
EMBED, HEADS, FFN, LAYERS = 48, 3, 80, 3
CODE_DIM, GROUPS, ENTRIES = 32, 2, 12
DISTRACTORS, TEMPERATURE = 9, 1.3
LABELS = 11

SAMPLES = 9763
UNPADDED = np.full(4, SAMPLES)
PADDED = np.array([SAMPLES, 7001, 5123, 8190])
LENGTHS = pytest.mark.parametrize("num_samples", [UNPADDED, PADDED], ids=["unpadded", "padded"])

MODULES = {
    "encoder": "wav2vec2",
    "encoder/feature_norm": "wav2vec2.feature_projection.layer_norm",
    "encoder/projection": "wav2vec2.feature_projection.projection",
    "encoder/context_network/position": "wav2vec2.encoder.pos_conv_embed.conv",
    "encoder/context_network/first_norm": "wav2vec2.encoder.layer_norm",
    "encoder/context_network/last_norm": "wav2vec2.encoder.layer_norm",
    "encoder/context_network/layer/attention/query": "wav2vec2.encoder.layers.{}.attention.q_proj",
    "encoder/context_network/layer/attention/key": "wav2vec2.encoder.layers.{}.attention.k_proj",
    "encoder/context_network/layer/attention/value": "wav2vec2.encoder.layers.{}.attention.v_proj",
    "encoder/context_network/layer/attention/out": "wav2vec2.encoder.layers.{}.attention.out_proj",
    "encoder/context_network/layer/attention_norm": "wav2vec2.encoder.layers.{}.layer_norm",
    "encoder/context_network/layer/feed_forward/up": "wav2vec2.encoder.layers.{}.feed_forward.intermediate_dense",
    "encoder/context_network/layer/feed_forward/down": "wav2vec2.encoder.layers.{}.feed_forward.output_dense",
    "encoder/context_network/layer/output_norm": "wav2vec2.encoder.layers.{}.final_layer_norm",
    "quantizer": "quantizer",
    "quantizer/logits": "quantizer.weight_proj",
    "project_context": "project_hid",
    "project_quantized": "project_q",
    "head": "lm_head",
    **{f"encoder/feature_encoder/block_{i}": f"wav2vec2.feature_extractor.conv_layers.{i}.conv" for i in range(7)},
    **{
        f"encoder/feature_encoder/block_{i}/norm": f"wav2vec2.feature_extractor.conv_layers.{i}.layer_norm"
        for i in range(7)
    },
}
LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "direction": "parametrizations.weight.original1",
    "magnitude": "parametrizations.weight.original0",
    "codebook": "codevectors",
    "mask_embedding": "masked_spec_embed",
}


class Variant(NamedTuple):
    """One architecture in both libraries: ours given the first convolution block, theirs the class."""

    first: Callable
    encoder: Callable[..., Wav2Vec2]
    config: transformers.Wav2Vec2Config


def group_norm_encoder(first, gradient_scale=1.0):
    context = ContextNetwork(LAYERS, PostNormLayer(HEADS, FFN))
    return Wav2Vec2(FeatureEncoder(CONV_LAYERS, first), context, EMBED, feature_gradient_scale=gradient_scale)


def layer_norm_encoder(first, gradient_scale=1.0):
    context = ContextNetwork(LAYERS, PreNormLayer(HEADS, FFN), first_norm=Identity, last_norm=LayerNorm)
    encoder = FeatureEncoder(CONV_LAYERS, first, LayerNormConv)
    return Wav2Vec2(encoder, context, EMBED, feature_gradient_scale=gradient_scale)


def their_config(**norms):
    dims, kernels, strides = zip(*CONV_LAYERS, strict=True)
    rates = (
        "hidden_dropout",
        "attention_dropout",
        "activation_dropout",
        "feat_proj_dropout",
        "feat_quantizer_dropout",
        "final_dropout",
        "layerdrop",
        "mask_feature_prob",
    )
    return transformers.Wav2Vec2Config(
        conv_dim=dims,
        conv_kernel=kernels,
        conv_stride=strides,
        hidden_size=EMBED,
        num_attention_heads=HEADS,
        intermediate_size=FFN,
        num_hidden_layers=LAYERS,
        codevector_dim=CODE_DIM,
        proj_codevector_dim=CODE_DIM,
        num_codevector_groups=GROUPS,
        num_codevectors_per_group=ENTRIES,
        vocab_size=LABELS,
        ctc_loss_reduction="sum",
        ctc_zero_infinity=True,
        **dict.fromkeys(rates, 0.0),
        **norms,
    )


VARIANTS = {
    "base": Variant(FairseqGroupNormConv, group_norm_encoder, their_config()),
    "large_lv60": Variant(
        LayerNormConv,
        layer_norm_encoder,
        their_config(feat_extract_norm="layer", conv_bias=True, do_stable_layer_norm=True),
    ),
}


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request):
    return VARIANTS[request.param]


def theirs(make, config):
    """A model with weights in general position: norms are not the identity, biases not zero, attention not flat."""
    torch.manual_seed(0)
    model = make(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return model


def their_name(path):
    path = jax.tree_util.keystr(path, simple=True, separator="/")
    module, _, leaf = path.rpartition("/")
    return f"{MODULES[module]}.{LEAVES[leaf]}"


def as_ours(tensors, shapes):
    """Their weights or gradients by name as the tree of ours; torch lists outputs first, we list them last."""

    def convert(tensor, shape):
        array = tensor.detach().numpy()
        return (array if array.shape[0] == 1 else array.T).reshape(shape)

    def leaf(path, like):
        name = their_name(path)
        if "{}" not in name:
            return convert(tensors[name], like.shape)
        return np.stack([convert(tensors[name.format(i)], like.shape[1:]) for i in range(like.shape[0])])

    return jax.tree_util.tree_map_with_path(leaf, shapes)


def weights_of(model):
    return dict(model.named_parameters())


def gradients_of(model):
    """Zeros where none came, as for the mask embedding when nothing is masked."""
    return {name: torch.zeros_like(w) if w.grad is None else w.grad for name, w in model.named_parameters()}


def pretraining(encoder, **changes):
    model = PretrainingModel(encoder, GumbelQuantizer(CODE_DIM, GROUPS, ENTRIES))
    return Pretraining(model, num_distractors=DISTRACTORS, **changes)


def as_params(tensors, task):
    return as_ours(tensors, nn.unbox(jax.eval_shape(task.init, jax.random.key(0))))


@functools.cache
def forward(model):
    """What a model gives, compiled once for padded and unpadded batches."""
    return jax.jit(model.apply)


@functools.cache
def value_and_gradients(task):
    """The objective per masked frame with its metrics, and its gradients, from frozen draws."""

    def objective(params, batch, draws):
        output = task.apply(params, batch, draws, TEMPERATURE)
        mean, metrics = task.objective(output, draws)
        return mean.value(), metrics

    return jax.jit(jax.value_and_grad(objective, has_aux=True))


def waveforms(num_samples):
    """Noise whose loudness drifts, so that no two frames and no two clips have the same statistics."""
    time = np.arange(SAMPLES)
    waveform = np.random.default_rng(1).normal(size=(4, SAMPLES)) * (1 + np.sin(time / 1500 + np.arange(4)[:, None]))
    return np.where(time < num_samples[:, None], waveform, 0).astype(np.float32)


def attention_mask(num_samples):
    return torch.tensor(np.arange(SAMPLES) < num_samples[:, None]).long()


def frozen_draws(encoder, num_samples):
    """Half of each clip's frames masked, an unequal number in each, and distractors and noise for them, by numpy."""
    rng = np.random.default_rng(2)
    frames = encoder.num_frames(SAMPLES)
    num_valid = np.array(encoder.num_valid_frames(jnp.array(num_samples)))
    order = np.argsort(np.where(np.arange(frames) < num_valid[:, None], rng.random((4, frames)), 2), axis=1)
    masked = np.zeros((4, frames), bool)
    slots = frames // 2 + 3
    targets = np.zeros((4, slots), np.int32)
    weight = np.zeros((4, slots), np.float32)
    distractors = np.zeros((4, slots, DISTRACTORS), np.int32)
    for i, count in enumerate(num_valid // 2):
        masked[i, order[i, :count]] = True
        targets[i, :count] = np.flatnonzero(masked[i])
        weight[i, :count] = 1
        for rank in range(count):
            distractors[i, rank] = rng.choice(np.delete(np.arange(count), rank), DISTRACTORS)
    noise = rng.gumbel(size=(4, slots, GROUPS, ENTRIES)).astype(np.float32)
    return Draws(*(jnp.array(x) for x in (masked, targets, weight, distractors, noise)))


def relative_error(ours, expected, floor=0.0):
    ours, expected = np.asarray(ours), np.asarray(expected)
    assert ours.shape == expected.shape
    return np.abs(ours - expected).max() / max(np.abs(expected).max(), floor)


def assert_same_gradients(ours, expected, bound):
    """Every tensor within `bound` of its largest entry; key biases, whose true gradient is 0, next to the others'."""
    largest = max(np.abs(g).max() for g in jax.tree.leaves(expected))
    errors = jax.tree.map(lambda a, b: relative_error(a, b, floor=1e-2 * largest), ours, expected)
    worst = sorted(((e, jax.tree_util.keystr(path)) for path, e in jax.tree_util.tree_leaves_with_path(errors)))[-3:]
    assert worst[-1][0] < bound, worst


@LENGTHS
def test_hidden_states_projections_and_codes_equal_transformers(variant, num_samples):
    task = pretraining(variant.encoder(variant.first))
    reference = theirs(transformers.Wav2Vec2ForPreTraining, variant.config).eval()
    waveform, masked = waveforms(num_samples), frozen_draws(task.model.encoder, num_samples).masked
    with torch.no_grad():
        expected = reference(
            torch.tensor(waveform),
            attention_mask=attention_mask(num_samples),
            mask_time_indices=torch.tensor(np.asarray(masked)),
            output_hidden_states=True,
        )

    every_frame = jnp.broadcast_to(jnp.arange(masked.shape[1]), masked.shape)
    no_noise = jnp.zeros((*masked.shape, GROUPS, ENTRIES))
    arguments = (jnp.array(waveform), jnp.array(num_samples), masked)
    params = as_params(weights_of(reference), task)
    output = forward(task.model)({"params": params}, *arguments, every_frame, no_noise, 1.0)
    no_channel = jnp.zeros((4, EMBED), bool)
    encoded = forward(task.model.encoder)({"params": params["encoder"]}, *arguments, no_channel)

    valid = np.asarray(output.valid)
    assert encoded.hidden.shape[0] == LAYERS + 1
    for ours, layer in zip(encoded.hidden, expected.hidden_states, strict=True):
        assert relative_error(ours[valid], layer[torch.tensor(valid)]) < 2e-5
    assert relative_error(output.context[valid], expected.projected_states[torch.tensor(valid)]) < 2e-5
    assert relative_error(output.quantized[valid], expected.projected_quantized_states[torch.tensor(valid)]) < 2e-5


def scattered(values, draws):
    """Values of the masked frames, on all frames."""
    values, targets, weight = (np.asarray(x) for x in (values, draws.targets, draws.weight))
    everywhere = np.zeros((*draws.masked.shape, *values.shape[2:]), values.dtype)
    for row, rows, positions, real in zip(everywhere, values, targets, weight > 0, strict=True):
        row[positions[real]] = rows[real]
    return everywhere


def freeze_noise(monkeypatch, noise):
    """Makes torch's Gumbel softmax use `noise` [batch frame group entry]."""

    def gumbel_softmax(logits, tau, hard):
        soft = ((logits + noise.reshape(logits.shape)) / tau).softmax(-1)
        return torch.nn.functional.one_hot(soft.argmax(-1), soft.shape[-1]) - soft.detach() + soft

    monkeypatch.setattr(torch.nn.functional, "gumbel_softmax", gumbel_softmax)


@LENGTHS
def test_pretraining_loss_its_terms_and_all_gradients_equal_transformers(variant, num_samples, monkeypatch):
    task = pretraining(variant.encoder(variant.first), penalty_weight=0.0)
    reference = theirs(transformers.Wav2Vec2ForPreTraining, variant.config).train()
    reference.set_gumbel_temperature(TEMPERATURE)
    draws = frozen_draws(task.model.encoder, num_samples)
    masked = np.asarray(draws.masked)
    freeze_noise(monkeypatch, torch.tensor(scattered(draws.noise, draws)))
    frames = np.take_along_axis(np.asarray(draws.targets)[:, :, None], np.asarray(draws.distractors), axis=1)
    flat = scattered(frames, draws) + np.arange(4)[:, None, None] * masked.shape[1]
    expected = reference(
        torch.tensor(waveforms(num_samples)),
        attention_mask=attention_mask(num_samples),
        mask_time_indices=torch.tensor(masked),
        sampled_negative_indices=torch.tensor(flat),
    )
    # Theirs is a sum over the masked frames, ours a mean.
    (expected.loss / masked.sum()).backward()

    batch = AudioBatch(jnp.array(waveforms(num_samples)), jnp.array(num_samples))
    (loss, metrics), gradients = value_and_gradients(task)(as_params(weights_of(reference), task), batch, draws)

    def per_frame(total):
        return pytest.approx(total.item() / masked.sum(), rel=1e-5)

    assert float(loss) == per_frame(expected.loss)
    assert float(metrics["contrastive_loss"].value()) == per_frame(expected.contrastive_loss)
    assert float(metrics["diversity_loss"].value()) == per_frame(expected.diversity_loss)
    assert float(metrics["prob_perplexity"].value()) == pytest.approx(expected.codevector_perplexity.item(), rel=1e-5)
    assert_same_gradients(gradients, as_params(gradients_of(reference), task), 5e-5)


def replay(reference, clips, draws, gradient_scale, diversity_weight, penalty_weight, sub_batch_size):
    """The whole recipe as fairseq has it, frame by frame, on clips of their own length: no padding, no batch.

    Only weights and standard layers are transformers'. Returns the objective, its terms and the monitors.
    """
    wav2vec2, quantizer = reference.wav2vec2, reference.quantizer
    masks, distractors, noise = (torch.tensor(np.asarray(x)) for x in (draws.masked, draws.distractors, draws.noise))
    losses, correct, latents, probs, codes = [], [], [], [], []
    for clip, mask, others, gumbel in zip(clips, masks, distractors, noise, strict=True):
        z = wav2vec2.feature_extractor(clip[None]).transpose(1, 2)[0]
        z = gradient_scale * z + (1 - gradient_scale) * z.detach()
        mask = mask[: len(z)]
        features = wav2vec2.feature_projection.layer_norm(z)
        x = wav2vec2.feature_projection.projection(features)
        x = torch.where(mask[:, None], wav2vec2.masked_spec_embed, x)
        context = reference.project_hid(wav2vec2.encoder(x[None]).last_hidden_state[0, mask])
        logits = quantizer.weight_proj(features[mask]).view(-1, GROUPS, ENTRIES)
        soft = ((logits + gumbel[: len(logits)]) / TEMPERATURE).softmax(-1)
        chosen = soft.argmax(-1)
        choice = torch.nn.functional.one_hot(chosen, ENTRIES) - soft.detach() + soft
        vectors = torch.einsum("tgv,gvd->tgd", choice, quantizer.codevectors.view(GROUPS, ENTRIES, -1)).flatten(1)
        quantized = reference.project_q(vectors)
        for t in range(len(context)):
            candidates = torch.cat([torch.tensor([t]), others[t]])
            scores = torch.cosine_similarity(context[t][None], quantized[candidates]) / 0.1
            same = (chosen[candidates] == chosen[t]).all(-1)
            same[0] = False
            scores = scores.masked_fill(same, -torch.inf)
            losses.append(-scores.log_softmax(0)[0])
            correct.append(float(scores.argmax() == 0 and scores.argmin() != 0))
        latents.append(z)
        probs.append(logits.softmax(-1))
        codes.append(torch.nn.functional.one_hot(logits.argmax(-1), ENTRIES).float())

    def perplexity(rows):
        mean = torch.cat(rows).mean(0)
        return torch.exp(-(mean * torch.log(mean + 1e-7)).sum(-1)).sum()

    def over_sub_batches(statistic, values):
        """The mean over sub-batches of a statistic, weighted by their masked frames."""
        starts = range(0, len(clips), sub_batch_size)
        parts = [slice(start, start + sub_batch_size) for start in starts]
        return sum(statistic(values[part]) * sum(map(len, probs[part])) for part in parts) / len(losses)

    terms = {
        "contrastive_loss": sum(losses) / len(losses),
        "contrastive_accuracy": torch.tensor(correct).mean(),
        "diversity_loss": over_sub_batches(lambda rows: 1 - perplexity(rows) / (GROUPS * ENTRIES), probs),
        "feature_penalty": over_sub_batches(lambda rows: torch.cat(rows).square().mean(), latents),
        "prob_perplexity": over_sub_batches(perplexity, probs),
        "code_perplexity": over_sub_batches(perplexity, codes),
    }
    weights = {"contrastive_loss": 1.0, "diversity_loss": diversity_weight, "feature_penalty": penalty_weight}
    return sum(weight * terms[name] for name, weight in weights.items()), terms


def test_base_recipe_in_a_padded_batch_equals_a_replay_of_each_clip_alone():
    """Scaled gradient of the feature encoder, feature penalty, sub-batches, group norm over valid frames alone."""
    recipe = {"diversity_weight": 0.1, "penalty_weight": 10.0, "sub_batch_size": 2}
    task = pretraining(group_norm_encoder(GroupNormConv, gradient_scale=0.1), **recipe)
    reference = theirs(transformers.Wav2Vec2ForPreTraining, VARIANTS["base"].config).train()
    draws = frozen_draws(task.model.encoder, PADDED)
    clips = [torch.tensor(clip[:n]) for clip, n in zip(waveforms(PADDED), PADDED, strict=True)]
    expected, terms = replay(reference, clips, draws, gradient_scale=0.1, **recipe)
    expected.backward()

    batch = AudioBatch(jnp.array(waveforms(PADDED)), jnp.array(PADDED))
    (loss, metrics), gradients = value_and_gradients(task)(as_params(weights_of(reference), task), batch, draws)
    assert float(loss) == pytest.approx(expected.item(), rel=1e-5)
    for name, value in terms.items():
        assert float(metrics[name].value()) == pytest.approx(value.item(), rel=2e-5), name
    assert_same_gradients(gradients, as_params(gradients_of(reference), task), 5e-5)


def test_a_clip_padded_with_nans_in_a_batch_of_base_equals_transformers_on_the_clip_alone():
    task = pretraining(group_norm_encoder(GroupNormConv))
    reference = theirs(transformers.Wav2Vec2ForPreTraining, VARIANTS["base"].config).eval()
    encoder, waveform = task.model.encoder, waveforms(PADDED)
    nothing = jnp.zeros((4, encoder.num_frames(SAMPLES)), bool)
    every_frame = jnp.broadcast_to(jnp.arange(nothing.shape[1]), nothing.shape)
    no_noise = jnp.zeros((*nothing.shape, GROUPS, ENTRIES))
    dirty = jnp.where(np.arange(SAMPLES) < PADDED[:, None], waveform, jnp.nan)
    arguments = (dirty, jnp.array(PADDED), nothing, every_frame, no_noise, 1.0)
    output = forward(task.model)({"params": as_params(weights_of(reference), task)}, *arguments)
    for i, n in enumerate(PADDED):
        with torch.no_grad():
            alone = reference(torch.tensor(waveform[None, i, :n]))
        frames = encoder.num_frames(int(n))
        assert alone.projected_states.shape[1] == frames == int(output.valid[i].sum())
        assert relative_error(output.context[i, :frames], alone.projected_states[0]) < 2e-5
        assert relative_error(output.quantized[i, :frames], alone.projected_quantized_states[0]) < 2e-5


@functools.cache
def ctc_value_and_gradients(task):
    """The summed loss with the logits and the number of infeasible clips, and its gradients; nothing is masked."""

    def objective(params, batch):
        logits = task.logits(params, batch)
        total, metrics = task.objective(logits, batch)
        return total.total, (logits, metrics["infeasible"].total)

    return jax.jit(jax.value_and_grad(objective, has_aux=True))


@LENGTHS
def test_ctc_logits_loss_and_all_gradients_equal_transformers(variant, num_samples):
    model = CTCModel(variant.encoder(variant.first), LABELS)
    task = CTCFinetuning(model, Vocabulary(tuple("abcdefghijk"), blank="a"))
    reference = theirs(transformers.Wav2Vec2ForCTC, variant.config).train()
    reference.config.apply_spec_augment = False
    # Padded, the third clip has too few frames for its labels.
    num_labels = np.array([7, 3, 18, 1])
    labels = np.random.default_rng(3).integers(1, LABELS, (4, num_labels.max()))
    real = np.arange(labels.shape[1]) < num_labels[:, None]
    expected = reference(
        torch.tensor(waveforms(num_samples)),
        attention_mask=attention_mask(num_samples),
        labels=torch.tensor(np.where(real, labels, -100)),
    )
    expected.loss.backward()

    arrays = waveforms(num_samples), num_samples, np.where(real, labels, 0), num_labels
    batch = LabeledBatch(*(jnp.array(x) for x in arrays))

    params = as_params(weights_of(reference), task)
    (loss, (logits, infeasible)), gradients = ctc_value_and_gradients(task)(params, batch)
    valid = np.arange(logits.shape[1]) < np.asarray(task.num_frames(batch))[:, None]
    assert relative_error(logits[valid], expected.logits.detach()[torch.tensor(valid)]) < 2e-5
    assert float(loss) == pytest.approx(expected.loss.item(), rel=1e-5)
    assert int(infeasible) == (num_samples is PADDED)
    assert_same_gradients(gradients, as_params(gradients_of(reference), task), 5e-5)


@pytest.mark.parametrize("norm", [torch.nn.utils.weight_norm, torch.nn.utils.parametrizations.weight_norm])
@pytest.mark.parametrize("width", [7, 8])
@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated")
def test_positional_convolution_has_weight_norm_per_tap_in_both_spellings_of_torch(width, norm):
    torch.manual_seed(0)
    conv = norm(torch.nn.Conv1d(12, 12, width, padding=width // 2, groups=3), dim=2)
    with torch.no_grad():
        for weight in conv.parameters():
            weight.mul_(1 + 0.3 * torch.rand_like(weight))
    weights = {name: weight.detach().numpy() for name, weight in conv.named_parameters()}
    magnitude, direction = (
        weights.get(old, weights.get(new))
        for old, new in (
            ("weight_g", "parametrizations.weight.original0"),
            ("weight_v", "parametrizations.weight.original1"),
        )
    )
    params = {"direction": direction.T, "magnitude": magnitude.reshape(width), "bias": weights["bias"]}
    params = jax.tree.map(jnp.array, params)
    x = torch.randn(2, 12, 19)
    expected = torch.nn.functional.gelu(conv(x)[..., :19]).mT
    ours = PositionalConv(width, num_groups=3).apply({"params": params}, jnp.array(x.mT.numpy()))
    assert relative_error(ours, expected.detach()) < 1e-5


def test_every_parameter_of_transformers_has_its_counterpart(variant):
    task = pretraining(variant.encoder(variant.first))
    with torch.device("meta"):
        reference = transformers.Wav2Vec2ForPreTraining(variant.config)
    names = set(weights_of(reference))
    shapes = nn.unbox(jax.eval_shape(task.init, jax.random.key(0)))
    found = [their_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(shapes)]
    assert sorted(name.format(i) for name in found for i in range(LAYERS if "{}" in name else 1)) == sorted(names)


def test_base_has_as_many_parameters_as_in_transformers():
    with torch.device("meta"):
        reference = transformers.Wav2Vec2ForPreTraining(transformers.Wav2Vec2Config())
    ours = jax.eval_shape(Pretraining(base()).init, jax.random.key(0))
    assert sum(x.size for x in jax.tree.leaves(ours)) == sum(weight.numel() for weight in reference.parameters())
