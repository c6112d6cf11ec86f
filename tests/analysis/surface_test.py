import numpy as np
import pytest
from matplotlib.image import imread

from w2v2_jax.analysis.surface import plot_surface
from w2v2_jax.decoding.hypotheses import Weights
from w2v2_jax.decoding.tuning import Trial


def bowl(seed=0, num_trials=40):
    """Trials whose rates are least at a weight of 2 and a score of -1."""
    rng = np.random.default_rng(seed)
    weights = [Weights(*pair) for pair in rng.uniform((0, -5), (5, 5), (num_trials, 2)).tolist()]
    return [Trial(each, 0.05 + (each.lm_weight - 2) ** 2 / 20 + (each.word_score + 1) ** 2 / 50) for each in weights]


@pytest.mark.parametrize(
    "trials",
    [bowl(), bowl(num_trials=3), [Trial(Weights(), 0.25)] * 5, [*bowl(), Trial(Weights(0.0, 5.0), 9.0)]],
    ids=["bowl", "three", "equal", "nonsense"],
)
def test_a_surface_is_drawn(tmp_path, trials):
    plot_surface(trials, tmp_path / "surface.png")
    image = imread(tmp_path / "surface.png")[..., :3]
    assert image.shape[1] > 2 * image.shape[0] > 1000
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 50


def test_the_map_is_lightest_where_the_rates_are_least(tmp_path):
    plot_surface(bowl(num_trials=200), tmp_path / "surface.png")
    image = imread(tmp_path / "surface.png")[..., :3]
    red = np.abs(image - np.array([0xD5, 0x5E, 0x00]) / 255).max(axis=-1) < 0.02  # the star
    row, column = (int(np.median(places)) for places in np.nonzero(red))
    beside = image[row - 40 : row + 40, column - 40 : column + 40].mean()
    assert beside > image[60:120, 100:160].mean() + 0.2


def test_two_trials_are_refused(tmp_path):
    with pytest.raises(ValueError, match="2 trials span no surface"):
        plot_surface(bowl()[:2], tmp_path / "surface.png")
