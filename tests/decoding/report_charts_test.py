import re

import numpy as np
import pytest

from w2v2_jax.decoding.report_charts import NUM_SPEAKERS, RATE_NAMES, histogram, interval, rates_along, rates_of
from w2v2_jax.decoding.scoring import Counts, score


def rows_of(chart):
    """The texts of each row without the drawing between them."""
    rows = [[cell.text for cell in row] for row in chart.iter("tr")]
    return {name: values for name, _, *values in rows}


def marks_of(chart, kind):
    """The style of each mark of a kind as numbers in percent."""
    marks = chart.findall(f".//div[@class='{kind}']")
    return [{name: float(share) for name, share in re.findall(r"(\w+):([\d.]+)%", mark.get("style"))} for mark in marks]


def test_a_histogram_counts_utterances_up_to_each_bound():
    errors = [0, 0, 0, 1, 2, 3, 5, 10, 11]  # of ten words: an eleventh is made up
    chart = histogram([Counts(each, 0, 0, 10) for each in errors])
    assert rows_of(chart) == dict(zip(RATE_NAMES, [["3", "33.3%"], *[["1", "11.1%"]] * 6], strict=True))
    assert [mark["width"] for mark in marks_of(chart, "bar")] == pytest.approx([100] + [33.33] * 6)


def test_utterances_without_words_have_a_rate_of_their_insertions():
    assert rows_of(histogram([Counts(0, 0, 2, 0), Counts(0, 0, 0, 0)]))["over 100%"][0] == "1"


def test_rates_along_values_are_those_of_equal_shares_of_the_utterances():
    values = np.random.default_rng(0).permutation(60)
    counts = [Counts(value // 10, 0, 0, 10) for value in values.tolist()]
    rows = rows_of(rates_along("title", "note", counts, values))
    assert rows == {
        f"{first}–{first + 9}": [f"{first}.0%", f"{first}.0–{first}.0%"]  # noqa: RUF001
        for first in range(0, 60, 10)
    }


def test_equal_values_stay_together():
    values = np.array([3] * 10 + [5] * 2)
    chart = rates_along("title", "note", [Counts(1, 0, 0, 2)] * 12, values)
    assert list(rows_of(chart)) == ["3", "5"]


def test_dots_bands_and_the_line_of_all_share_a_scale():
    groups = {"x": [Counts(number % 2, 0, 0, 1) for number in range(40)], "y": [Counts(0, 0, 0, 1)] * 40}
    counts, names = [*groups["x"], *groups["y"]], ["x"] * 40 + ["y"] * 40
    chart = rates_of("title", "note", counts, names)
    x = score(groups["x"])
    assert marks_of(chart, "dot") == [{"left": pytest.approx(100 * 0.5 / x.high, abs=0.01)}, {"left": 0}]
    assert marks_of(chart, "overall") == [{"left": pytest.approx(100 * 0.25 / x.high, abs=0.01)}] * 2
    band = marks_of(chart, "band")[0]
    assert band["left"] + band["width"] == pytest.approx(100, abs=0.02)


def test_speakers_are_shown_from_the_worst_on_and_the_best_are_left_out():
    names = [f"speaker {number}" for number in range(NUM_SPEAKERS + 10)]
    chart = rates_of("title", "note", [Counts(number, 0, 0, 100) for number in range(len(names))], names)
    assert list(rows_of(chart)) == names[:9:-1]
    assert chart.find("p").text == f"the {NUM_SPEAKERS} worst of {len(names)}; note"


def test_names_without_a_word_have_no_rate_and_no_row():
    chart = rates_of("title", "note", [Counts(0, 0, 1, 0), Counts(0, 0, 0, 4)], ["silent", "spoken"])
    assert list(rows_of(chart)) == ["spoken"]


def test_a_single_utterance_has_no_interval():
    chart = rates_of("title", "note", [Counts(1, 0, 0, 2), *[Counts(1, 0, 0, 4)] * 2], ["x", "y", "y"])
    assert rows_of(chart) == {"x": ["50.0%", "1 utterance"], "y": ["25.0%", "25.0–25.0%"]}  # noqa: RUF001


def test_an_interval_has_one_sign_of_percent():
    assert interval(0.0312, 0.0456, 1) == "3.1–4.6%"  # noqa: RUF001
