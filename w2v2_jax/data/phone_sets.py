"""The phones of TIMIT: 61 are transcribed, 48 modelled, 39 scored.

After Lee & Hon 1989, "Speaker-independent phone recognition using hidden Markov models", IEEE Transactions on
Acoustics, Speech, and Signal Processing 37(11).
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from w2v2_jax.data.text import SPECIALS, Vocabulary

SILENCE = "sil"


def _table(kept: str, folded: Mapping[str, str]) -> Mapping[str, str]:
    """What each phone becomes: the kept ones themselves, and what else each of `folded`'s keys lists."""
    table = {phone: phone for phone in kept.split()}
    return MappingProxyType(table | {phone: into for phones, into in folded.items() for phone in phones.split()})


TO_48 = _table(
    "aa ae ah ao aw ax ay b ch cl d dh dx eh el en epi er ey f g hh ih ix iy jh k l m n ng ow oy p r s sh sil t th uh "
    "uw v vcl w y z zh",
    {
        "ax-h": "ax",
        "axr": "er",
        "em": "m",
        "nx": "n",
        "eng": "ng",
        "hv": "hh",
        "ux": "uw",
        "pcl tcl kcl": "cl",
        "bcl dcl gcl": "vcl",
        "h# pau": SILENCE,
        "q": "",
    },
)
"""The 61 phones of TIMIT's transcripts, and the 48 themselves, to the 48; the glottal stop q is dropped."""

TO_39 = _table(
    "aa ae ah aw ay b ch d dh dx eh er ey f g hh ih iy jh k l m n ng ow oy p r s sh sil t th uh uw v w y z",
    {"ao": "aa", "ax": "ah", "ix": "ih", "el": "l", "en": "n", "zh": "sh", "cl vcl epi": SILENCE},
)
"""The 48 phones, and the 39 themselves, to the 39."""


def fold_to_48(phones: str) -> str:
    """`phones`, separated by spaces, of the 61 or the 48, as those of the 48 that stand for them.

    Raises ValueError for anything else. Neighbours that fold into one phone both stay, as in the customary recipes.
    """
    return " ".join(filter(None, (TO_48[phone] for phone in _known(phones, TO_48))))


def fold_to_39(phones: str) -> str:
    """`phones`, separated by spaces, of the 61, the 48 or the 39, as those of the 39; otherwise like `fold_to_48`."""
    return " ".join(TO_39[phone] for phone in fold_to_48(phones).split())


def as_transcribed(phones: str) -> str:
    """`phones`, separated by spaces, as they are, if they are of the 61; raises like `fold_to_48`."""
    return " ".join(_known(phones, TO_48))


FOLDS: Mapping[int, Callable[[str], str]] = MappingProxyType({61: as_transcribed, 48: fold_to_48, 39: fold_to_39})
"""How a transcript of the 61 is written in each of the sets."""


def phone_vocabulary(num_phones: int) -> Vocabulary:
    """The labels of a network that tells 61, 48 or 39 phones apart, after fairseq's specials."""
    transcribed = TO_48.keys() - {"cl", "vcl", SILENCE}
    phones = {FOLDS[num_phones](phone) for phone in transcribed} - {""}
    return Vocabulary((*SPECIALS, *sorted(phones)), word_end="", separator=" ")


def _known(phones: str, table: Mapping[str, str]) -> list[str]:
    found = phones.split()
    for place, phone in enumerate(found):
        if phone not in table:
            raise ValueError(f"{phone!r}, phone {place} of {phones!r}, is not one of TIMIT's ({' '.join(table)})")
    return found
