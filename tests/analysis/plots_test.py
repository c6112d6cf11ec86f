import numpy as np
import pytest
from matplotlib.image import imread

from w2v2_jax.analysis.plots import panels, plot_curves, plot_utterance
from w2v2_jax.data.audio import Phone

LABELS = ["-", "A", "B"]


def rows(num_rows, **values):
    return [{"step": step, **values} for step in range(num_rows)]


def utterance(frames=50):
    rng = np.random.default_rng(0)
    posteriors = np.eye(3, dtype=np.float32)[rng.integers(0, 3, frames)]
    return {
        "waveform": rng.normal(size=frames * 320 + 80).astype(np.float32),
        "masked": np.arange(frames) // 10 == 2,
        "codes": rng.integers(0, 320, (frames, 2)),
        "posteriors": posteriors,
        "labels": LABELS,
        "reference": "A B",
        "hypothesis": "A A",
    }


def brightness(path):
    return imread(path)[..., :3].mean()


def test_curves_are_written_with_a_panel_a_metric(tmp_path):
    two_runs = {"a": rows(300, loss=3.0, grad_norm=1.0), "b": rows(3, loss=2.0)}
    plot_curves(two_runs, ["loss"], tmp_path / "one.png")
    plot_curves(two_runs, ["loss", "grad_norm"], tmp_path / "two.png")
    one, two = (imread(tmp_path / name).shape for name in ("one.png", "two.png"))
    assert (two[0], two[1]) == (one[0], 2 * one[1])


def test_a_metric_without_a_panel_of_its_own_and_values_that_are_nan_are_drawn(tmp_path):
    plot_curves(
        {"a": [*rows(5, my_metric=1.0), {"step": 6, "my_metric": float("nan")}]}, ["my_metric"], tmp_path / "x.png"
    )
    assert brightness(tmp_path / "x.png") < 1


def test_the_chance_line_is_that_of_one_target_among_all():
    assert panels(num_distractors=100)["contrastive_loss"].reference == pytest.approx(4.615, abs=1e-3)
    assert panels(num_distractors=9)["contrastive_accuracy"].reference == pytest.approx(0.1)


def test_a_metric_that_no_run_logs_is_named_in_the_error(tmp_path):
    with pytest.raises(ValueError, match="no run logs los; choose keys among loss, step"):
        plot_curves({"a": rows(3, loss=1.0)}, ["los"], tmp_path / "x.png")


def test_an_utterance_is_drawn_with_and_without_phones_and_masks(tmp_path):
    full = utterance()
    plot_utterance(tmp_path / "full.png", **full, phones=[Phone("AH", 0, 8000), Phone("B", 8000, 16000)])
    plot_utterance(tmp_path / "bare.png", **full | {"masked": np.zeros(50, bool)})
    full_image, bare_image = (imread(tmp_path / name) for name in ("full.png", "bare.png"))
    assert full_image.shape[0] > bare_image.shape[0]
    assert full_image.shape[1] == bare_image.shape[1]


def test_a_long_utterance_gets_a_wider_figure(tmp_path):
    plot_utterance(tmp_path / "short.png", **utterance(50))
    plot_utterance(tmp_path / "long.png", **utterance(600))
    assert imread(tmp_path / "long.png").shape[1] > imread(tmp_path / "short.png").shape[1]


def test_labels_that_do_not_name_every_column_are_refused(tmp_path):
    with pytest.raises(ValueError, match="2 labels can't name 3 columns"):
        plot_utterance(tmp_path / "x.png", **utterance() | {"labels": ["-", "A"]})
