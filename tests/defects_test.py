"""Where the known defects of other implementations of wav2vec 2.0 are held off: each has tests that fail with it.

Numbers are those of our survey of the field; those left out are of scripts and tools rather than of the model.
"""

import ast
from pathlib import Path

import jax
import jax.numpy as jnp
import micro
import numpy as np
import pytest

from w2v2_jax.model import PretrainingOutput
from w2v2_jax.quantizer import Quantized
from w2v2_jax.tasks import Draws

TESTS_OF = {
    "D1 in training the quantizer gives soft mixtures of codebook entries": (
        "quantizer_test.py::test_vectors_are_entries_of_the_codebook_exactly_while_training",
    ),
    "D2 codebook and mask embedding start in [0, 0.01) instead of [0, 1)": (
        "layers_test.py::test_unit_uniform_fills_0_to_1",
        "quantizer_test.py::test_codebook_starts_uniform_from_0_to_1_and_logits_normal",
        "model_test.py::test_mask_embedding_starts_uniform_from_0_to_1_and_the_projection_as_in_torch",
    ),
    "D3 the diversity loss is not multiplied by the number of targets, so that it weighs nothing": (
        "defects_test.py::test_diversity_loss_counts_once_for_every_target",
        "reference_test.py::test_pretraining_loss_its_terms_and_all_gradients_equal_transformers",
    ),
    "D4 distractors are drawn from all frames instead of the masked ones": (
        "masking_test.py::test_distractors_are_masked_frames_of_the_same_clip",
        "tasks_test.py::test_distractors_are_masked_frames_of_the_same_clip_and_never_the_frame_itself",
    ),
    "D5 BASE, with group norm and post-norm layers, is not supported": (
        "tasks_test.py::test_loss_and_gradients_of_base_are_finite_and_reach_every_parameter",
        "reference_test.py::test_hidden_states_projections_and_codes_equal_transformers",
    ),
    "D9 the feature encoder's gradient is not scaled and its output not penalised": (
        "reference_test.py::test_base_recipe_in_a_padded_batch_equals_a_replay_of_each_clip_alone",
        "experiments_test.py::test_pretraining_recipes_have_the_published_values",
    ),
    "D13 distractors may equal the target or come from another clip": (
        "masking_test.py::test_a_masked_frame_is_never_its_own_distractor",
        "masking_test.py::test_distractors_are_masked_frames_of_the_same_clip",
    ),
    "D14 the vectors of all distractors are copied": (
        "losses_test.py::test_no_vector_of_a_distractor_is_copied",
        "tasks_test.py::test_no_array_of_a_training_step_holds_the_vectors_of_the_distractors",
    ),
    "D15 group norm takes statistics over padding, so that a clip depends on its batch": (
        "feature_encoder_test.py::test_a_clip_in_a_padded_batch_equals_the_clip_alone",
        "model_test.py::test_a_clip_in_a_padded_batch_equals_the_clip_alone_even_if_the_padding_is_nan",
        "reference_test.py::test_a_clip_padded_with_nans_in_a_batch_of_base_equals_transformers_on_the_clip_alone",
    ),
    "D16 the CTC loss may be negative, and labels that don't fit have a loss and a gradient": (
        "ctc_test.py::test_near_certain_loss_is_never_negative",
        "ctc_test.py::test_infeasible_rows_have_zero_loss_and_gradient_like_torch_with_zero_infinity",
    ),
    "D17 importing a checkpoint drops the mask embedding, the quantizer and the projections": (
        "convert/fairseq_test.py::test_each_tensor_of_a_pretrained_network_is_where_it_belongs",
        "convert/fairseq_test.py::test_transformers_to_fairseq_and_back_is_bit_equal",
        "convert/torchaudio_test.py::test_a_network_of_pretraining_is_refused_with_what_has_no_place",
    ),
    "D19 weight norm as weight_g, weight_v or as parametrizations.weight.original0, original1: one is unknown": (
        "reference_test.py::test_positional_convolution_has_weight_norm_per_tap_in_both_spellings_of_torch",
        "convert/huggingface_test.py::test_weights_are_the_same_in_whatever_files_they_are",
        "convert/fairseq_test.py::test_the_newer_spelling_of_weight_norm_is_read",
        "convert/torchaudio_test.py::test_the_newer_spelling_of_weight_norm_is_read",
    ),
}


@pytest.mark.parametrize("defect", TESTS_OF)
def test_each_known_defect_has_tests_which_are_never_skipped(defect):
    for node in TESTS_OF[defect]:
        file, name = node.split("::")
        tree = ast.parse((Path(__file__).parent / file).read_text())
        found = {test.name: test for test in tree.body if isinstance(test, ast.FunctionDef)}
        assert name in found, node
        marks = [ast.unparse(mark) for mark in found[name].decorator_list]
        assert not any("skip" in mark or "xfail" in mark for mark in marks), node


@pytest.mark.usefixtures("quick_compilation")
def test_diversity_loss_counts_once_for_every_target():
    """What it adds to the sum over 14 targets: 14 times 1 - perplexity / 12 entries, by the book."""
    rng = np.random.default_rng(0)
    probs = np.float32(rng.dirichlet(np.full(6, 0.1), (2, 7, 2)))
    context, quantized = jnp.array(rng.normal(size=(2, 2, 7, 8)), jnp.float32)
    chosen = Quantized(quantized, jnp.array(probs.argmax(axis=-1)), jnp.array(probs))
    output = PretrainingOutput(context, quantized, chosen, jnp.ones((2, 9, 8)), jnp.ones((2, 9), bool))
    masked, targets = jnp.tile(jnp.arange(9) < 7, (2, 1)), jnp.tile(jnp.arange(7), (2, 1))
    distractors = (targets[:, :, None] + jnp.arange(1, 7)[None, None]) % 7
    draws = Draws(masked, targets, jnp.ones((2, 7)), distractors, jnp.zeros(probs.shape))
    tasks = [micro.pretraining_task(diversity_weight=weight, penalty_weight=0.0) for weight in (0.0, 1.0)]
    without, with_it = jax.jit(lambda: [task.objective(output, draws)[0].total for task in tasks])()

    mean = probs.mean(axis=(0, 1), dtype=np.float64)
    perplexity = np.exp(-(mean * np.log(mean)).sum(axis=-1)).sum()
    assert float(with_it - without) == pytest.approx(14 * (1 - perplexity / 12), rel=1e-4)
