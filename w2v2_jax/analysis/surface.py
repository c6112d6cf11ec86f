"""A figure of a search for decoding weights: where errors are fewest, and how soon that was found."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from scipy.interpolate import RBFInterpolator

from w2v2_jax.analysis.plots import COLOURS, FAINT, INK
from w2v2_jax.decoding.tuning import LM_WEIGHTS, WORD_SCORES, Trial

POINTS = 160
"""Along each side of the surface as it is drawn."""


def plot_surface(trials: Sequence[Trial], path: str | Path) -> None:
    """Draws the word error rate over language-model weight and word score, and the best rate so far, and writes it.

    Each trial is a point; the surface between them is a smooth guess. Rates of the worst quarter are drawn as the best
    of them, for weights that make nonsense of the speech give rates far above 100 %. Raises ValueError for fewer than
    three trials.
    """
    if len(trials) < 3:
        raise ValueError(f"{len(trials)} trials span no surface; run 3 or more")
    weights = np.array([trial.weights for trial in trials], float)
    rates = np.array([trial.word_error_rate for trial in trials])
    ceiling = max(float(np.quantile(rates, 0.75)), float(rates.min()) + 1e-3)
    figure = Figure(figsize=(11.5, 4.6), layout="constrained")
    surface, progress = figure.subplots(1, 2, width_ratios=(1.35, 1))
    _draw_surface(surface, weights, rates, ceiling)
    _draw_progress(progress, rates, ceiling)
    FigureCanvasAgg(figure).print_figure(path, dpi=150, facecolor="white")


def _draw_surface(
    axes: Axes, weights: Float[np.ndarray, "trial 2"], rates: Float[np.ndarray, " trial"], ceiling: float
) -> None:
    (low, high), (bottom, top) = LM_WEIGHTS, WORD_SCORES
    x, y = np.meshgrid(np.linspace(low, high, POINTS), np.linspace(bottom, top, POINTS))
    scale = np.array([high - low, top - bottom])
    # Smoothed, for a rate jumps by whole words; that also lets two trials have equal weights.
    guess = RBFInterpolator(weights / scale, np.minimum(rates, ceiling), kernel="linear", smoothing=0.05, degree=0)
    heights = np.maximum(guess(np.stack([x.ravel(), y.ravel()], axis=1) / scale), rates.min()).reshape(x.shape)
    levels = MaxNLocator(12).tick_values(rates.min(), ceiling)
    filled = axes.contourf(x, y, heights, levels=levels, cmap="viridis_r", extend="max")
    axes.contour(x, y, heights, levels=levels, colors="white", linewidths=0.5, alpha=0.5)
    axes.scatter(*weights.T, s=9, color="white", edgecolors=INK, linewidths=0.5)
    best = int(rates.argmin())
    axes.plot(*weights[best], "*", color=COLOURS[1], markersize=17, markeredgecolor="white")
    lm_weight, word_score = weights[best]
    title = f"Word error rate, {rates[best]:.2%} at weight {lm_weight:.2f}, score {word_score:.2f}"
    _style(axes, title)
    axes.set_xlabel("language-model weight", fontsize=9, color=FAINT)
    axes.set_ylabel("word score", fontsize=9, color=FAINT)
    bar = axes.figure.colorbar(filled, ax=axes, format=PercentFormatter(1), pad=0.02, aspect=30)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8.5, colors=FAINT, length=0)


def _draw_progress(axes: Axes, rates: Float[np.ndarray, " trial"], ceiling: float) -> None:
    numbers = np.arange(1, len(rates) + 1)
    best = np.minimum.accumulate(rates)
    shown = rates <= ceiling
    axes.plot(numbers[shown], rates[shown], "o", color=COLOURS[0], alpha=0.4, markersize=4.5, markeredgewidth=0)
    beyond = np.full(np.count_nonzero(~shown), ceiling)
    axes.plot(numbers[~shown], beyond, "^", color=COLOURS[0], alpha=0.4, markersize=4.5, markeredgewidth=0)
    axes.step(numbers, np.minimum(best, ceiling), where="post", color=COLOURS[0], linewidth=1.8)
    axes.annotate(
        f"{best[-1]:.2%}", (numbers[-1], best[-1]), xytext=(5, 0), textcoords="offset points", va="center",
        fontsize=8.5, color=COLOURS[0],
    )  # fmt: skip
    _style(axes, f"Best so far and each trial (triangles: above {ceiling:.0%})")
    axes.set_xlabel("trials", fontsize=9, color=FAINT)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.margins(x=0.03, y=0.06)
    axes.grid(axis="y", color="#EEEEEE", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["left", "bottom"]].set_visible(True)
    axes.spines[["left", "bottom"]].set_color("#CCCCCC")


def _style(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=11, color=INK)
    axes.spines[:].set_visible(False)
    axes.tick_params(labelsize=8.5, colors=FAINT, length=0)
