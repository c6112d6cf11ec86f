"""A small English of about 350 common words: varied sentences for synthetic speech."""

import math
import random
import zlib


def listed(words: str) -> tuple[str, ...]:
    """The words of a text."""
    return tuple(words.split())


NAMES = listed("anna ben clara daniel emma frank grace henry julia kate lucas maria oscar paul rose simon tom victor")
NOUNS = listed("""
apple baby bag ball bank bear bed bell bird boat book bottle box boy bread bridge brother bus cake camera captain car
cat chair child church city clock cloud coat cook corner cow cup dancer daughter desk doctor dog door dress driver
duck engine farmer father field fire fish flower forest fox friend garden gate girl glass guest guitar hat hill horse
hotel house island jacket key king kitchen lady lake lamp leaf letter lion machine map market mirror moon mother
mountain mouse neighbour nurse ocean orange painter paper park picture pilot planet pony queen rabbit radio rain river
road rock room sailor school shadow ship shirt shop singer sister snow soldier song spoon star station stone story
street student sun table teacher tiger tower town train tree uncle valley village wall watch wheel window winter wolf
woman writer
""")
ADJECTIVES = listed("""
angry beautiful big black blue brave bright broken brown busy cheap clean clever cold dark deep dry empty famous fast
friendly funny gentle golden great green grey happy heavy hungry kind large lazy little long lonely loud new noisy old
pink poor proud purple quick quiet red rich round sad sharp short shy silver slow small soft strange strong sweet tall
thin tired warm weak white wild wise yellow young
""")
ACTIONS = listed("""
admired asked bought brought called carried caught chose cleaned counted described drew expected felt followed forgot
found gave helped hid held joined kept kissed knew left liked lost loved missed moved needed noticed painted passed
pulled pushed reached remembered saved saw showed sold stole taught thanked touched visited wanted washed watched
welcomed
""")
MOTIONS = listed("climbed danced fell jumped lived played ran rested sang sat slept smiled stood stopped talked waited")
PLACES = listed("above across after around before behind below beside beyond inside near outside over through under")
TIMES = tuple(
    """again|at night|every day|early in the morning|for an hour|in the afternoon|last summer|last week|long ago
|on friday|on monday|on sunday|one evening|this year|today|twice|yesterday""".replace("\n", "").split("|")
)
MANNERS = listed("alone carefully gladly hardly loudly often quickly quietly slowly suddenly together well")
STARTS = listed("and but finally later maybe soon then")
DETERMINERS = listed("the a the my the this your the his another every her no our that their")
PRONOUNS = listed("he i it she they we you everybody nobody somebody")


class Sentences:
    """Draws sentences of four to about a dozen words, in small letters and spaces only, from part of the lexicon.

    `lexicon` is the share of every word list that is used, above 0 and up to 1: about 350 words at 1.
    """

    def __init__(self, rng: random.Random, lexicon: float):
        if not 0 < lexicon <= 1:
            raise ValueError(f"lexicon={lexicon} is no share of the words; give a number above 0 and up to 1")
        self._rng, self._lexicon = rng, lexicon

    def sentence(self) -> str:
        """A sentence, hardly ever the same one twice."""
        start = [self._one_of(STARTS)] if self._chance(0.15) else []
        end = [self._one_of(TIMES)] if self._chance(0.3) else []
        predicate = self._rng.choice((self._act, self._act, self._move))
        return " ".join([*start, self._subject(), *predicate(), *end])

    def _chance(self, probability: float) -> bool:
        return self._rng.random() < probability

    def _one_of(self, words: tuple[str, ...]) -> str:
        return self._rng.choice(words[: math.ceil(len(words) * self._lexicon)])

    def _act(self) -> list[str]:
        manner = [self._one_of(MANNERS)] if self._chance(0.2) else []
        place = [self._one_of(PLACES), self._thing()] if self._chance(0.35) else []
        return [*manner, self._one_of(ACTIONS), self._thing(), *place]

    def _move(self) -> list[str]:
        manner = [self._one_of(MANNERS)] if self._chance(0.4) else []
        return [self._one_of(MOTIONS), *manner, self._one_of(PLACES), self._thing()]

    def _subject(self) -> str:
        return self._rng.choice((self._thing, self._thing, self._person))()

    def _person(self) -> str:
        return self._one_of(self._rng.choice((NAMES, PRONOUNS)))

    def _thing(self) -> str:
        """A determiner, at times an adjective, and a noun."""
        adjective = self._one_of(ADJECTIVES) if self._chance(0.4) else ""
        noun = self._one_of(NOUNS)
        determiner = self._one_of(DETERMINERS)
        an = determiner == "a" and (adjective or noun)[0] in "aeiou"
        return " ".join(filter(None, ("an" if an else determiner, adjective, noun)))


def share(text: str) -> int:
    """One of twenty equal shares of all sentences, by the sentence's letters alone: no seed can move it to another."""
    return zlib.crc32(text.encode()) % 20
