"""Figures of runs and utterances: one style, labels at the lines, colours that the colour-blind tell apart."""

import itertools
import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from w2v2_jax.data.audio import SAMPLE_RATE, Phone
from w2v2_jax.frames import PAPER_CONV_LAYERS
from w2v2_jax.metrics import Row

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe & Ito's palette without its yellow and black."""

PRETRAINING_CURVES = ("contrastive_loss", "contrastive_accuracy", "code_perplexity")
FINETUNING_CURVES = ("loss", "valid/label_error_rate", "valid/word_error_rate")

INK, FAINT = "#222222", "#8A8A8A"
PAPER_STRIDE = math.prod(stride for _, _, stride in PAPER_CONV_LAYERS)


class Panel(NamedTuple):
    """How a metric is shown: its title, the unit on its axis, and a line for reference if it has a name."""

    title: str
    unit: str
    reference: float = math.nan
    reference_name: str = ""


def panels(num_distractors: int) -> dict[str, Panel]:
    """Panels of the metrics that have a title of their own; chance is that of 1 target and `num_distractors`."""
    choices = 1 + num_distractors
    return {
        "loss": Panel("Loss", "nats"),
        "contrastive_loss": Panel("Contrastive loss", "nats", math.log(choices), f"chance, ln {choices}"),
        "contrastive_accuracy": Panel("Contrastive accuracy", "share", 1 / choices, f"chance, 1/{choices}"),
        "code_perplexity": Panel("Codes in use", "perplexity"),
        "prob_perplexity": Panel("Codes in use, by probability", "perplexity"),
        "diversity_loss": Panel("Codebook left unused", "share"),
        "grad_norm": Panel("Gradient norm", ""),
        "word_error_rate": Panel("Word error rate", "share"),
        "label_error_rate": Panel("Label error rate", "share"),
        "valid/word_error_rate": Panel("Word error rate, unseen speech", "share"),
        "valid/label_error_rate": Panel("Label error rate, unseen speech", "share"),
    }


def plot_curves(
    rows_by_run: Mapping[str, Sequence[Row]], keys: Sequence[str], path: str | Path, num_distractors: int = 100
) -> None:
    """Draws one panel a metric with one line a run, named at its end, over the updates, and writes it to `path`.

    Thin lines are the values as logged, thick ones their running mean. A run that doesn't log a metric is left out of
    that panel. Raises ValueError if there is nothing to draw.
    """
    logged = {key for rows in rows_by_run.values() for row in rows for key in row}
    if missing := sorted(set(keys) - logged):
        raise ValueError(f"no run logs {', '.join(missing)}; choose keys among {', '.join(sorted(logged))}")
    columns = min(len(keys), 3)
    lines = math.ceil(len(keys) / columns)
    figure = Figure(figsize=(4.6 * columns, 3.1 * lines), layout="constrained")
    titles = panels(num_distractors)
    for i, key in enumerate(keys):
        axes = figure.add_subplot(lines, columns, i + 1)
        _draw_metric(axes, rows_by_run, key, titles.get(key, Panel(key.replace("_", " ").capitalize(), "")))
    _save(figure, path)


def _draw_metric(axes: Axes, rows_by_run: Mapping[str, Sequence[Row]], key: str, panel: Panel) -> None:
    _style(axes)
    axes.set_title(panel.title + (f" ({panel.unit})" if panel.unit else ""), loc="left", fontsize=11, color=INK)
    ends = []
    for colour, (name, rows) in zip(_colours(len(rows_by_run)), rows_by_run.items(), strict=True):
        steps = np.array([row["step"] for row in rows if key in row], float)
        values = np.array([row[key] for row in rows if key in row], float)
        steps, values = steps[np.isfinite(values)], values[np.isfinite(values)]
        if len(values) == 0:
            continue
        smooth = _running_mean(values)
        axes.plot(steps, values, color=colour, alpha=0.3, linewidth=0.7)
        axes.plot(steps, smooth, color=colour, linewidth=1.8)
        axes.plot(steps[-1:], smooth[-1:], "o", color=colour, markersize=4)
        ends.append((steps[-1], smooth[-1], f"{name}  {_three_digits(smooth[-1])}", colour))
    if panel.reference_name:
        axes.axhline(panel.reference, color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
        axes.annotate(
            panel.reference_name, (1, panel.reference), xycoords=axes.get_yaxis_transform(), xytext=(-2, 3),
            textcoords="offset points", ha="right", fontsize=8, color=FAINT,
        )  # fmt: skip
    axes.margins(x=0.02, y=0.12)
    axes.grid(axis="y", color="#EEEEEE", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel("updates", fontsize=9, color=FAINT)
    _label_ends(axes, ends)


def _label_ends(axes: Axes, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Names each line to the right of the panel, pushed upwards where names would overlap."""
    low, high = axes.get_ylim()
    free = -math.inf
    for _, y, text, colour in sorted(ends, key=lambda end: end[1]):
        free = max((y - low) / (high - low), free)
        axes.annotate(text, (1.02, free), xycoords="axes fraction", va="center", fontsize=8.5, color=colour)
        free += 0.075


def _running_mean(values: np.ndarray) -> np.ndarray:
    """Mean over the nearest fortieth of the points, fewer at both ends; the values themselves if they are few."""
    reach = len(values) // 80
    sums = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    first, stop = np.maximum(at - reach, 0), np.minimum(at + reach + 1, len(values))
    return (sums[stop] - sums[first]) / (stop - first)


def _three_digits(value: float) -> str:
    return f"{value:#.3g}".rstrip(".")


def plot_utterance(
    path: str | Path,
    waveform: Float[np.ndarray, " sample"],
    masked: Bool[np.ndarray, " frame"],
    codes: Int[np.ndarray, "frame group"],
    posteriors: Float[np.ndarray, "frame label"],
    labels: Sequence[str],
    reference: str,
    hypothesis: str,
    phones: Sequence[Phone] = (),
    samples_per_frame: int = PAPER_STRIDE,
) -> None:
    """Draws one utterance from sound to text over a common time axis in seconds and writes it to `path`.

    Top to bottom: the waveform (16 kHz) and its spectrogram with masked spans shaded, the phones if there are any,
    the codes of each group as stripes (a colour is a code), and the probabilities of the labels, each run of frames
    that speaks named by its letter. `labels` names the columns of `posteriors`, the blank first. Frame t is drawn
    over the `samples_per_frame` samples from its first one on. Raises ValueError if a column has no name.
    """
    if len(labels) != posteriors.shape[1]:
        raise ValueError(
            f"{len(labels)} labels can't name {posteriors.shape[1]} columns of posteriors; "
            f"give the vocabulary that the model was trained with"
        )
    seconds = len(waveform) / SAMPLE_RATE
    frame_seconds = samples_per_frame / SAMPLE_RATE
    edges = frame_seconds * np.arange(len(masked) + 1)
    hidden = [(edges[start], edges[stop]) for start, stop in _runs(masked) if masked[start]]

    heights = {"waveform": 0.6, "spectrogram": 1.5, "phones": 0.28, "codes": 0.3 * codes.shape[1], "posteriors": 1.5}
    if not phones:
        del heights["phones"]
    width = min(max(11.0, 1.3 * seconds), 26.0)
    title = _wrapped("reference", reference, width) + "\n" + _wrapped("hypothesis", hypothesis, width)
    figure = Figure(figsize=(width, 1.35 * sum(heights.values()) + 0.5 + 0.2 * title.count("\n")), layout="constrained")
    axes = figure.subplot_mosaic([[name] for name in heights], sharex=True, height_ratios=list(heights.values()))
    figure.suptitle(title, x=0.01, ha="left", fontsize=10.5, color=INK, family="monospace", linespacing=1.4)
    _draw_waveform(axes["waveform"], waveform, hidden)
    _draw_spectrogram(axes["spectrogram"], waveform, hidden)
    if phones:
        _draw_phones(axes["phones"], phones)
    _draw_codes(axes["codes"], codes, edges)
    _draw_posteriors(axes["posteriors"], posteriors, labels, edges)
    axes["posteriors"].set_xlim(0, seconds)
    axes["posteriors"].set_xlabel("seconds", fontsize=9, color=FAINT)
    for panel in list(axes.values())[:-1]:
        panel.tick_params(axis="x", labelbottom=False, length=0)
    figure.align_ylabels()
    _save(figure, path)


def _wrapped(name: str, text: str, width_inches: float) -> str:
    return textwrap.fill(f"{name:<12}{text}", int(10.5 * width_inches), subsequent_indent=" " * 12)


def _runs(ids: np.ndarray) -> list[tuple[int, int]]:
    """First frame and the frame after the last of every run of equal rows."""
    changes = np.flatnonzero((ids[1:] != ids[:-1]).reshape(len(ids) - 1, -1).any(axis=1)) + 1
    bounds = [0, *changes.tolist(), len(ids)]
    return list(itertools.pairwise(bounds))


def _draw_waveform(axes: Axes, waveform: np.ndarray, hidden: Sequence[tuple[float, float]]) -> None:
    # Lowest and highest sample of each pixel's worth of time: drawing every sample hides the envelope.
    hop = max(len(waveform) // 2000, 1)
    pieces = waveform[: len(waveform) // hop * hop].reshape(-1, hop)
    time = np.arange(len(pieces)) * hop / SAMPLE_RATE
    axes.fill_between(time, pieces.min(axis=1), pieces.max(axis=1), color=INK, linewidth=0.3)
    for start, stop in hidden:
        axes.axvspan(start, stop, color=COLOURS[4], alpha=0.35, linewidth=0)
    _bare(axes, "waveform")


def _draw_spectrogram(axes: Axes, waveform: np.ndarray, hidden: Sequence[tuple[float, float]]) -> None:
    axes.imshow(
        _log_spectrogram(waveform), origin="lower", aspect="auto", cmap="magma", interpolation="nearest",
        extent=(0, len(waveform) / SAMPLE_RATE, 0, SAMPLE_RATE / 2000),
    )  # fmt: skip
    for start, stop in hidden:
        axes.axvspan(start, stop, facecolor="white", alpha=0.5, linewidth=0)
    _bare(axes, "kHz")
    axes.set_yticks([0, 4, 8])
    if hidden:
        axes.set_title("shaded: masked from the context network", loc="right", fontsize=8, color=FAINT, pad=2)


def _log_spectrogram(waveform: np.ndarray, window: int = 400, hop: int = 80) -> np.ndarray:
    """Power in decibels [frequency, time], at most 70 below the loudest point."""
    padded = np.pad(waveform.astype(np.float64), window // 2)
    pieces = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]
    power = np.abs(np.fft.rfft(pieces * np.hanning(window), n=512)) ** 2
    decibels = 10 * np.log10(power + 1e-10)
    return np.maximum(decibels, decibels.max() - 70).T


def _draw_phones(axes: Axes, phones: Sequence[Phone]) -> None:
    for i, phone in enumerate(phones):
        start, end = phone.start / SAMPLE_RATE, phone.end / SAMPLE_RATE
        axes.axvspan(start, end, color="#E4E4E4" if i % 2 else "#F4F4F4", linewidth=0)
        axes.text((start + end) / 2, 0.5, phone.symbol, ha="center", va="center", fontsize=7.5, color=INK, clip_on=True)
    axes.set_ylim(0, 1)
    _bare(axes, "phones")


def _draw_codes(axes: Axes, codes: np.ndarray, edges: np.ndarray) -> None:
    groups = codes.shape[1]
    axes.imshow(_code_colours(codes.T), aspect="auto", interpolation="nearest", extent=(0, edges[-1], groups, 0))
    axes.hlines(range(1, groups), 0, edges[-1], color="white", linewidth=2)
    _bare(axes, "codes")
    axes.set_yticks(np.arange(groups) + 0.5, [f"group {g + 1}" for g in range(groups)])


def _code_colours(codes: np.ndarray) -> np.ndarray:
    """A muted colour a code: the palette with a lightness that differs between codes of one hue."""
    hues = np.array([to_rgb(colour) for colour in COLOURS])[codes % len(COLOURS)]
    white = (0.1 + 0.65 * np.modf(codes * 0.618034)[0])[..., None]
    return hues * (1 - white) + white


def _draw_posteriors(axes: Axes, posteriors: np.ndarray, labels: Sequence[str], edges: np.ndarray) -> None:
    time = (edges[:-1] + edges[1:]) / 2
    axes.plot(time, posteriors[:, 0], color="#CFCFCF", linewidth=1)
    axes.text(
        1.005, posteriors[-1, 0], "blank", transform=axes.get_yaxis_transform(), fontsize=8, color=FAINT, va="center"
    )
    best = posteriors.argmax(axis=1)
    colours = _colours(posteriors.shape[1])
    for label in range(1, posteriors.shape[1]):
        if posteriors[:, label].max() > 0.02:
            axes.fill_between(time, posteriors[:, label], color=colours[label], alpha=0.3, linewidth=0)
            axes.plot(time, posteriors[:, label], color=colours[label], linewidth=1.2)
    for start, stop in _runs(best):
        label = best[start]
        if label != 0:
            peak = start + posteriors[start:stop, label].argmax()
            axes.annotate(
                labels[label], (time[peak], 1.1), ha="center", fontsize=9.5, color=colours[label], fontweight="bold",
            )  # fmt: skip
    axes.set_ylim(0, 1.25)
    _style(axes)
    axes.set_yticks([0, 1])
    axes.set_ylabel("label\nprobability", fontsize=9, color=INK)


def _colours(count: int) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(count)]


def _style(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#CCCCCC")
    axes.tick_params(labelsize=8.5, colors=FAINT, length=3)


def _bare(axes: Axes, name: str) -> None:
    axes.spines[:].set_visible(False)
    axes.set_yticks([])
    axes.tick_params(labelsize=8.5, colors=FAINT, length=0)
    axes.set_ylabel(name, fontsize=9, color=INK)


def _save(figure: Figure, path: str | Path) -> None:
    FigureCanvasAgg(figure).print_figure(path, dpi=150, facecolor="white")
