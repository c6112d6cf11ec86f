"""Where errors are, as tables whose rows are drawn: they read as text, and as pictures."""

from collections.abc import Sequence
from xml.etree.ElementTree import Element

import numpy as np
from jaxtyping import Num

from w2v2_jax.decoding.markup import element
from w2v2_jax.decoding.scoring import Counts, score, total

NUM_GROUPS = 6
NUM_SPEAKERS = 24
RATE_BOUNDS = (0, 0.1, 0.2, 0.3, 0.5, 1)
RATE_NAMES = ("no error", "up to 10%", "10–20%", "20–30%", "30–50%", "50–100%", "over 100%")  # noqa: RUF001


def histogram(counts: Sequence[Counts]) -> Element:
    """How many utterances there are of each error rate."""
    rates = [count.errors / max(count.reference_length, 1) for count in counts]
    sizes = np.bincount(np.digitize(rates, RATE_BOUNDS, right=True), minlength=len(RATE_NAMES))
    rows = [
        _row(name, [_mark("bar", width=size / sizes.max())], f"{size:,}", f"{size / len(counts):.1%}")
        for name, size in zip(RATE_NAMES, sizes, strict=True)
    ]
    return _chart("Utterances by error rate", "edits per reference word", rows)


def rates_along(title: str, note: str, counts: Sequence[Counts], values: Num[np.ndarray, " utterance"]) -> Element:
    """Error rates of about equally many utterances each, from those of the least of `values` to the greatest."""
    edges = np.quantile(values, np.linspace(0, 1, NUM_GROUPS + 1)[1:-1])
    places = np.digitize(values, np.unique(edges))
    groups = {}
    for place in np.unique(places):
        inside = np.flatnonzero(places == place)
        bounds = dict.fromkeys(f"{bound}" for bound in (values[inside].min(), values[inside].max()))
        groups["–".join(bounds)] = [counts[index] for index in inside]  # noqa: RUF001
    return _rates(title, note, groups, counts)


def rates_of(title: str, note: str, counts: Sequence[Counts], names: Sequence[str]) -> Element:
    """Error rates of the utterances of each name, such as that of the speaker, the `NUM_SPEAKERS` worst of them."""
    groups: dict[str, list[Counts]] = {}
    for name, count in zip(names, counts, strict=True):
        groups.setdefault(name, []).append(count)
    worst = sorted(groups, key=lambda name: _rate(groups[name]), reverse=True)[:NUM_SPEAKERS]
    shown = f"the {len(worst)} worst of {len(groups)}; {note}" if len(worst) < len(groups) else note
    return _rates(title, shown, {name: groups[name] for name in worst}, counts)


def interval(low: float, high: float, digits: int) -> str:
    """Such as 3.1 to 4.2%, with a dash."""
    return f"{100 * low:.{digits}f}–{high:.{digits}%}"  # noqa: RUF001


def _rates(title: str, note: str, groups: dict[str, list[Counts]], everything: Sequence[Counts]) -> Element:
    """A dot with its interval a group, and a line at the rate of all."""
    scores = {name: score(counts) for name, counts in groups.items() if total(counts).reference_length}
    scale = max((each.high for each in scores.values()), default=0) or 1
    overall = _mark("overall", left=min(_rate(everything) / scale, 1))
    rows = [
        _row(
            name,
            [
                overall,
                _mark("band", left=each.low / scale, width=(each.high - each.low) / scale),
                _mark("dot", left=each.rate / scale),
            ],
            f"{each.rate:.1%}",
            interval(each.low, each.high, 1) if len(groups[name]) > 1 else "1 utterance",
        )
        for name, each in scores.items()
    ]
    return _chart(title, note, rows)


def _rate(counts: Sequence[Counts]) -> float:
    corpus = total(counts)
    return corpus.errors / max(corpus.reference_length, 1)


def _mark(kind: str, **places: float) -> Element:
    return element("div", class_=kind, style=";".join(f"{name}:{share:.2%}" for name, share in places.items()))


def _row(name: str, marks: Sequence[Element], *values: str) -> Element:
    cells = [element("td", value) for value in values]
    return element("tr", element("th", name, scope="row"), element("td", *marks, class_="track"), *cells)


def _chart(title: str, note: str, rows: Sequence[Element]) -> Element:
    table = element("table", element("tbody", *rows), class_="chart")
    return element("section", element("h3", title), element("p", note, class_="note"), table)
