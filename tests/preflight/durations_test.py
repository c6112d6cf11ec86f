import numpy as np
import pytest
from matplotlib.image import imread

from w2v2_jax.preflight.durations import plot_durations

SECONDS = np.random.default_rng(0).gamma(4.0, 2.0, 500)


@pytest.mark.parametrize(
    ("seconds", "edges"),
    [
        ({"train": SECONDS, "dev": SECONDS[:9], "test": SECONDS[:0]}, (4.0, 20.0)),
        ({"train": SECONDS[:1]}, ()),
        ({"train": SECONDS[:0]}, ()),
        ({"train": np.array([5_000.0])}, ()),
    ],
    ids=["three splits", "one utterance", "nothing readable", "hours"],
)
def test_a_figure_has_a_panel_for_each_split(tmp_path, seconds, edges):
    plot_durations(tmp_path / "figure.png", seconds, edges, "corpus")
    height, width, _ = imread(tmp_path / "figure.png").shape
    assert width == pytest.approx(8.5 * 150, abs=2)
    assert height == pytest.approx((1.3 + 1.45 * len(seconds)) * 150, abs=2)
