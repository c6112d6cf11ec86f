import math

import numpy as np
import pytest

from w2v2_jax.doctor import RULES, diagnose, report


def healthy_rows(num_rows=200, every=100, **changes):
    """A BASE run: accuracy towards .49, perplexity from about 100 through a dip of 30 to 250, noisy gradients."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(num_rows):
        progress = i / num_rows
        contrastive_loss = 2.4 + 2.6 * np.exp(-4 * progress) + rng.normal() * 0.05
        perplexity = 30 + 70 * np.exp(-40 * progress) + 220 * progress
        row = {
            "step": (i + 1) * every,
            "contrastive_loss": contrastive_loss,
            "loss": contrastive_loss + 0.1 * (1 - perplexity / 640) + 0.05,
            "contrastive_accuracy": 0.02 + 0.47 * progress,
            "code_perplexity": perplexity,
            "prob_perplexity": perplexity * 1.1,
            "diversity_loss": 1 - perplexity / 640,
            "feature_penalty": 0.005,
            "grad_norm": rng.lognormal(0, 0.5),
        }
        rows.append(row | {key: change(i, row[key]) for key, change in changes.items()})
    return rows


def names(rows, **sizes):
    return [finding.name for finding in diagnose(rows, **sizes)]


def constant(value):
    return lambda i, _: value


@pytest.mark.parametrize("num_rows", [0, 1, 5, 15, 50, 200])
def test_a_healthy_run_has_no_findings_at_any_length(num_rows):
    assert diagnose(healthy_rows(num_rows)) == []
    assert diagnose(healthy_rows()[:num_rows]) == []


def test_the_dip_of_the_perplexity_early_in_a_healthy_run_is_no_finding():
    assert diagnose(healthy_rows(code_perplexity=constant(20.0), prob_perplexity=constant(25.0))) == []


def test_a_plateau_after_the_loss_has_fallen_is_no_finding():
    assert diagnose(healthy_rows(loss=lambda i, x: max(x, 3.0), grad_norm=constant(0.8))) == []


def test_one_spike_of_the_gradient_is_no_finding():
    assert diagnose(healthy_rows(grad_norm=lambda i, x: 1e4 if i == 195 else x)) == []


def test_metrics_that_are_not_logged_are_not_judged():
    assert diagnose([{"step": step} for step in range(0, 10_000, 100)]) == []


@pytest.mark.parametrize("key", ["loss", "contrastive_loss", "grad_norm"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_or_gradient_that_is_not_finite_is_found_at_its_step(key, value):
    (finding,) = diagnose(healthy_rows(**{key: lambda i, x: value if i == 50 else x}))
    assert finding.name == "not finite"
    assert f"{key} is {value} at step 5100" in finding.evidence


def test_loss_at_ln_101_with_full_perplexity_and_no_gradient_is_uniform_logits():
    changes = {"contrastive_loss": 4.615, "prob_perplexity": 639.5, "grad_norm": 1e-4}
    found = diagnose(healthy_rows(**{key: constant(value) for key, value in changes.items()}))
    assert [finding.name for finding in found] == ["uniform logits"]
    assert "ln(1 + 100)" in found[0].evidence


@pytest.mark.parametrize("missing", ["contrastive_loss", "prob_perplexity", "grad_norm"])
def test_each_of_the_three_signs_is_needed_for_uniform_logits(missing):
    changes = {"contrastive_loss": 4.615, "prob_perplexity": 639.5, "grad_norm": 1e-4}
    del changes[missing]
    assert "uniform logits" not in names(healthy_rows(**{key: constant(value) for key, value in changes.items()}))


def test_uniform_logits_are_judged_by_the_run_s_own_sizes():
    changes = {"contrastive_loss": math.log(11), "prob_perplexity": 64.0, "grad_norm": 0.0}
    rows = healthy_rows(**{key: constant(value) for key, value in changes.items()})
    assert "uniform logits" in names(rows, num_groups=8, num_entries=8, num_distractors=10)
    assert "uniform logits" not in names(rows)


@pytest.mark.parametrize(("num_groups", "num_entries"), [(2, 320), (8, 8)])
def test_perplexity_that_sinks_to_the_number_of_groups_is_code_collapse(num_groups, num_entries):
    rows = healthy_rows(code_perplexity=lambda i, x: max(num_groups + 0.1, 60.0 - i))
    assert names(rows, num_groups=num_groups, num_entries=num_entries) == ["code collapse"]


def test_a_task_solved_within_a_few_hundred_steps_has_no_distractors():
    rows = healthy_rows(
        contrastive_loss=lambda i, x: x if i < 4 else 0.001, contrastive_accuracy=lambda i, x: x if i < 4 else 1.0
    )
    (finding,) = diagnose(rows)
    assert finding.name == "every distractor equals the target"
    assert "at step 500" in finding.evidence


def test_a_gradient_norm_that_stays_a_hundredfold_has_diverged():
    assert names(healthy_rows(grad_norm=lambda i, x: x * 100 if i > 180 else x)) == ["diverged gradient norm"]


def test_a_loss_that_stays_where_it_began_is_not_falling():
    assert names(healthy_rows(loss=constant(4.7))) == ["loss not falling"]


def test_a_fine_tuning_run_whose_loss_stays_is_found_from_its_loss_alone():
    rows = [{"step": step, "loss": 300.0 + step % 3} for step in range(0, 10_000, 100)]
    assert names(rows) == ["loss not falling"]


def test_every_finding_names_evidence_cause_and_cure_and_is_printed():
    def dead(i, _):
        return math.nan if i == 199 else 4.615

    findings = diagnose(healthy_rows(loss=dead, code_perplexity=constant(2.0)))
    assert len(findings) >= 2
    for finding in findings:
        assert all(finding)
        assert all(part in report(findings) for part in finding)


def test_a_report_without_findings_says_healthy():
    assert report([]) == "healthy"


def test_every_rule_says_what_it_looks_for():
    assert all(rule.__doc__ for rule in RULES)
