import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from w2v2_jax.preflight.checks import Check, Verdict, search
from w2v2_jax.preflight.report import check_table, is_sound, listing, size_table, write_json
from w2v2_jax.preflight.sizes import Size

SIZE = Size(1_200, 2.5, 7, 3, 6.25, 0.5, "[shortest]", 30.0, "longest")
MANY = search("silent", Verdict.ERROR, (f"train/u{i}" for i in range(12)))
ODD = search("clipped", Verdict.WARNING, ["train/[b]u1[/b]: 3.0%"])
NONE = search("unreadable", Verdict.ERROR, [])
HOURS = Check("audio an update", Verdict.INFO, 1.3888, "h")


def shown(table):
    file = io.StringIO()
    Console(file=file, width=160).print(table)
    return file.getvalue()


def line_of(name, text):
    [line] = [line for line in text.splitlines() if name in line]
    return [cell.strip() for cell in line.strip("│").split("│")]


def test_a_check_that_found_nothing_is_sound():
    assert (NONE.verdict, NONE.number, NONE.cases) == (Verdict.SOUND, 0, ())
    assert (MANY.verdict, MANY.number, len(MANY.cases)) == (Verdict.ERROR, 12, 12)


def test_every_check_has_a_line_with_its_verdict_number_and_example():
    text = shown(check_table("Checks", [MANY, ODD, NONE, HOURS]))
    assert line_of("silent", text) == ["silent", "error", "12 utterances", "train/u0"]
    assert line_of("clipped", text) == ["clipped", "warning", "1 utterance", "train/[b]u1[/b]: 3.0%"]
    assert line_of("unreadable", text) == ["unreadable", "sound", "0 utterances", ""]
    assert line_of("update", text) == ["audio an update", "info", "1.39 h", ""]


def test_every_split_has_a_line():
    line = line_of("train", shown(size_table("corpus", {"train": SIZE})))
    assert line == ["train", "1,200", "2.50", "7 (3 unnamed)", "6.25 s", "0.50 s: [shortest]", "30.00 s: longest"]


def test_errors_are_listed_up_to_ten_cases_and_the_rest_is_counted():
    lines = listing([ODD, MANY, NONE]).splitlines()
    assert lines == ["silent:", *[f"  train/u{i}" for i in range(10)], "  and 2 more"]
    assert listing([ODD, NONE, HOURS]) == ""


@pytest.mark.parametrize(("checks", "sound"), [([MANY, ODD], False), ([ODD, NONE, HOURS], True), ([], True)])
def test_an_error_alone_makes_a_corpus_unsound(checks, sound):
    assert is_sound(checks) == sound


def test_json_has_all_cases(tmp_path):
    write_json(tmp_path / "found.json", {"train": SIZE}, [MANY, HOURS], Path("runs/figure.png"), hosts=16)
    fields = json.loads((tmp_path / "found.json").read_text())
    assert fields["hosts"] == 16 and fields["sound"] is False and fields["figure"] == "runs/figure.png"
    assert fields["splits"]["train"]["longest"] == "longest"
    assert [check["number"] for check in fields["checks"]] == [12, 1.3888]
    assert len(fields["checks"][0]["cases"]) == 12 and fields["checks"][0]["verdict"] == "error"
