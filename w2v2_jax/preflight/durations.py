"""A figure of how long the utterances of each split are."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from w2v2_jax.analysis.plots import COLOURS, FAINT, INK
from w2v2_jax.preflight.leakage import Role, role_of

MOST_BARS = 80
BAR_SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60)
"""What a bar may stand for, the finest of which `MOST_BARS` reach the longest utterance."""
ROLE_COLOURS = {Role.TRAINING: COLOURS[0], Role.DEV: COLOURS[1], Role.TEST: COLOURS[2]}


def plot_durations(
    path: Path, seconds: Mapping[str, Float[np.ndarray, " _"]], edges: Sequence[float] = (), title: str = ""
) -> None:
    """Draws a panel a split over one axis, how many utterances are so many seconds long, and writes it to `path`.

    Dashed lines stand at `edges`, the seconds that batches of training are padded to.
    """
    longest = max((each.max(initial=0.0) for each in seconds.values()), default=0.0)
    bar = next((width for width in BAR_SECONDS if longest < MOST_BARS * width), BAR_SECONDS[-1])
    bins = float(bar) * np.arange(int(longest / bar) + 2)
    height = 1.3 + 1.45 * len(seconds)
    figure = Figure(figsize=(8.5, height), layout="constrained")
    figure.get_layout_engine().set(hspace=0.08, rect=(0, 0, 1, 1 - 0.6 / height))
    figure.text(0.012, 1 - 0.12 / height, title, va="top", fontsize=12, color=INK)
    figure.text(0.012, 1 - 0.36 / height, _explained(edges), va="top", fontsize=8.5, color=FAINT)
    panels = np.atleast_1d(figure.subplots(len(seconds), sharex=True))
    for panel, (split, durations) in zip(panels, seconds.items(), strict=True):
        _draw(panel, split, durations, bins)
        for edge in edges if role_of(split) == Role.TRAINING else ():
            panel.axvline(edge, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
    panels[-1].set_xlim(0, max(bins[-1], *edges, 0.0) * 1.01)
    panels[-1].set_xlabel(f"seconds, a bar for each {bar:g}", fontsize=9, color=FAINT)
    for panel in panels[:-1]:
        panel.tick_params(axis="x", length=0)
    FigureCanvasAgg(figure).print_figure(path, dpi=150, facecolor="white")


def _explained(edges: Sequence[float]) -> str:
    dashed = f"; dashed: batches of training are padded to {', '.join(f'{edge:g}' for edge in edges)} s"
    return "utterances by their seconds" + (dashed if edges else "")


def _draw(panel: Axes, split: str, durations: Float[np.ndarray, " _"], bins: Float[np.ndarray, " _"]) -> None:
    panel.hist(durations, bins, color=ROLE_COLOURS[role_of(split)], rwidth=0.92)
    panel.set_title(split, loc="left", fontsize=10, color=INK, pad=3)
    panel.set_title(_told(durations), loc="right", fontsize=8.5, color=FAINT, pad=3)
    panel.spines[["top", "right", "left"]].set_visible(False)
    panel.spines["bottom"].set_color("#CCCCCC")
    panel.grid(axis="y", color="#EEEEEE", linewidth=0.8)
    panel.set_axisbelow(True)
    panel.tick_params(labelsize=8.5, colors=FAINT, length=0)
    panel.tick_params(axis="x", length=3)
    panel.set_ylim(0, max(panel.get_ylim()[1], 1))
    panel.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    panel.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def _told(durations: Float[np.ndarray, " _"]) -> str:
    if not len(durations):
        return "nothing can be read"
    hours, median = durations.sum() / 3600, np.median(durations)
    return f"{len(durations):,} utterance{'s' * (len(durations) != 1)}, {hours:,.2f} h, median {median:.1f} s"
