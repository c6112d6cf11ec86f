"""What a check says: its verdict, and what that rests on."""

import enum
from collections.abc import Iterable
from typing import NamedTuple


class Verdict(enum.StrEnum):
    """How it is with what was checked. An error alone is a reason not to launch; a warning may be as intended."""

    SOUND = "sound"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Check(NamedTuple):
    """One check: how many there are of what it looks for, or how much, and each case, the most telling first."""

    name: str
    verdict: Verdict
    number: float
    unit: str
    cases: tuple[str, ...] = ()


def search(name: str, verdict: Verdict, cases: Iterable[str], unit: str = "utterances") -> Check:
    """A check that is sound if it has found nothing."""
    found = tuple(cases)
    return Check(name, verdict if found else Verdict.SOUND, len(found), unit, found)
