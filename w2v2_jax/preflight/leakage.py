"""What should be new in a test and isn't: voices, sentences and recordings that are in training too."""

import enum
import textwrap
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from w2v2_jax.preflight.checks import Check, Verdict, search
from w2v2_jax.preflight.scan import Scanned


class Role(enum.StrEnum):
    """What a split is for."""

    TRAINING = "training"
    DEV = "dev"
    TEST = "test"


NAMES = {"test": Role.TEST, "eval": Role.TEST, "dev": Role.DEV, "valid": Role.DEV, "validation": Role.DEV}
"""Words in the names of splits that are held out; all others are for training."""


def role_of(split: str) -> Role:
    """What a split is for, by its name: `test_clean` and `fr_test` are for tests."""
    words = (word.rstrip("0123456789") for word in split.lower().split("_"))
    return next((NAMES[word] for word in words if word in NAMES), Role.TRAINING)


Severity = Mapping[Role, Verdict]
"""How bad it is, for a split held out, to share something with training."""

NEW_SPEAKERS: Severity = {Role.TEST: Verdict.ERROR, Role.DEV: Verdict.WARNING}
"""As LibriSpeech and TIMIT have it."""
SAME_SPEAKERS: Severity = {Role.TEST: Verdict.WARNING, Role.DEV: Verdict.WARNING}
"""For corpora of so few voices that they can't be kept apart."""
SENTENCES: Severity = {Role.TEST: Verdict.WARNING, Role.DEV: Verdict.WARNING}
"""Short ones recur in any corpus."""
RECORDINGS: Severity = {Role.TEST: Verdict.ERROR, Role.DEV: Verdict.ERROR}


class Trait(NamedTuple):
    """What may be shared: what an utterance has of it (empty if that isn't known), and how to tell people."""

    name: str
    of: Callable[[Scanned], str | bytes]
    severity: Severity
    told: Callable[[Scanned], str]


def leakage_checks(scanned: Sequence[Scanned], speakers: Severity = NEW_SPEAKERS) -> list[Check]:
    """What test and dev, as far as they are there, share with training; and recordings that are there twice."""
    traits = (
        Trait("speakers", lambda each: each.speaker, speakers, lambda each: f": speaker {each.speaker}"),
        Trait("sentences", lambda each: normalised(each.text), SENTENCES, _told_text),
        Trait("recordings", lambda each: each.sound.digest, RECORDINGS, lambda each: ""),
    )
    roles = {role: [each for each in scanned if role_of(each.split) == role] for role in Role}
    held_out = [role for role in (Role.TEST, Role.DEV) if roles[role]]
    if not (held_out and roles[Role.TRAINING]):
        return [
            Check("leakage", Verdict.INFO, 0, "", ("there aren't both training and test to compare",)),
            *_twice(scanned),
        ]
    shared = (_shared(trait, role, roles[role], roles[Role.TRAINING]) for trait in traits for role in held_out)
    return [*shared, *_twice(scanned)]


def _shared(trait: Trait, role: Role, held_out: Sequence[Scanned], training: Sequence[Scanned]) -> Check:
    name = f"{trait.name} of {role} in training"
    tested, trained = _first_with(held_out, trait), _first_with(training, trait)
    if not (tested and trained):
        return Check(name, Verdict.INFO, 0, trait.name, ("not known of any utterance of one of them",))
    # The longer a sentence is, the less likely it recurs by chance.
    values = sorted(tested.keys() & trained.keys(), key=lambda value: (-len(value), value))
    cases = (f"{tested[value].name} and {trained[value].name}{trait.told(tested[value])}" for value in values)
    return search(name, trait.severity[role], cases, trait.name)


def _first_with(scanned: Sequence[Scanned], trait: Trait) -> dict[str | bytes, Scanned]:
    return {value: each for each in reversed(scanned) if (value := trait.of(each))}


def _told_text(each: Scanned) -> str:
    return f": {textwrap.shorten(each.text, 60, placeholder=' ...')!r}"


def _twice(scanned: Sequence[Scanned]) -> list[Check]:
    """Copies in one split, and in several splits that are for the same."""
    in_split, in_role = {}, {}
    copies, copies_elsewhere = [], []
    for each in scanned:
        digest = each.sound.digest
        if not digest:
            continue
        first = in_split.setdefault((each.split, digest), each)
        elsewhere = in_role.setdefault((role_of(each.split), digest), each)
        if first is not each:
            copies.append(f"{each.name} is {first.name}")
        elif elsewhere is not each:
            copies_elsewhere.append(f"{each.name} is {elsewhere.name}")
    return [
        search("copies in a split", Verdict.WARNING, copies, "recordings"),
        search("copies in like splits", Verdict.INFO, copies_elsewhere, "recordings"),
    ]


class _Plain(dict):
    """Of each character what counts when sentences are compared: no marks, no apostrophes, no cases."""

    def __missing__(self, point: int) -> str:
        character = chr(point)
        is_mark = unicodedata.category(character)[0] in "PS"
        self[point] = ("" if character in "'\u2019" else " ") if is_mark else character.casefold()
        return self[point]


_PLAIN = _Plain()


def normalised(text: str) -> str:
    """A text as it is compared: composed (NFKC), without cases, punctuation and apostrophes, single spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).translate(_PLAIN).split())
