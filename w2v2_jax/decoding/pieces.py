"""Long recordings searched piece by piece: a beam search keeps all that it ever tried, a gigabyte for some minutes."""

import collections
import dataclasses
import heapq
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import Float

from w2v2_jax.data.text import Vocabulary
from w2v2_jax.decoding.greedy import Candidate, Decoded

Decoder = Callable[[Iterable[np.ndarray], Vocabulary], Iterator[Decoded]]


@dataclasses.dataclass(frozen=True)
class InPieces:
    """What `decoder` makes of recordings that are cut in the longest pauses into pieces of at most `max_frames`.

    Each piece is a sentence to a language model. Shorter recordings, of a minute where a frame takes 20 ms, are not
    cut. Of a longer one the score is the sum of those of its pieces, and the candidates are the best combinations of
    theirs, as many as the piece has that has most.
    """

    decoder: Decoder
    max_frames: int = 3_000

    def __call__(self, emissions: Iterable[np.ndarray], vocabulary: Vocabulary) -> Iterator[Decoded]:
        """What was said in one recording after the other."""
        waiting = collections.deque[list[int]]()

        def pieces() -> Iterator[np.ndarray]:
            for log_probs in emissions:
                starts = cuts(log_probs, vocabulary, self.max_frames)
                waiting.append([0, *starts])
                yield from np.split(log_probs, starts)

        found = self.decoder(pieces(), vocabulary)
        for first in found:
            starts = waiting.popleft()
            yield joined([first, *itertools.islice(found, len(starts) - 1)], starts)


def cuts(log_probs: Float[np.ndarray, "frame label"], vocabulary: Vocabulary, max_frames: int) -> list[int]:
    """The first frames of all pieces but the first.

    Each begins in the longest pause of the second half of what the piece before may have, where likeliest is the blank
    or the mark that ends words: behind the mark, which belongs to the word before, else in the middle. Where nobody
    pauses a piece is as long as may be.
    """
    ids = log_probs.argmax(axis=1)
    silent = np.isin(ids, (vocabulary.blank_id, vocabulary.word_end_id))
    found, start = [], 0
    while len(ids) - start > max_frames:
        first = start + max_frames // 2
        changes = np.flatnonzero(np.diff(silent[first : start + max_frames], prepend=False, append=False))
        pauses = (changes + first).reshape(-1, 2).tolist()
        begin, end = max(pauses, key=lambda pause: pause[1] - pause[0], default=(start + max_frames,) * 2)
        marks = np.flatnonzero(ids[begin:end] == vocabulary.word_end_id) + 1
        start = begin + int(marks[-1]) if len(marks) else (begin + end + 1) // 2
        found.append(start)
    return found


def joined(pieces: Sequence[Decoded], starts: Sequence[int]) -> Decoded:
    """What was found in pieces that begin at the frames `starts`, as found in the whole."""
    placed = [
        (piece.labels, piece.starts + start, piece.stops + start, piece.label_scores)
        for piece, start in zip(pieces, starts, strict=True)
    ]
    candidates = pieces[0].candidates
    num_candidates = max(len(piece.candidates) for piece in pieces)
    for piece in pieces[1:]:
        pairs = itertools.product(candidates, piece.candidates)
        both: dict[str, float] = {}
        for text, score in ((" ".join(filter(None, (a.text, b.text))), a.score + b.score) for a, b in pairs):
            both[text] = max(score, both.get(text, -np.inf))
        found = heapq.nlargest(num_candidates, both.items(), key=lambda each: each[1])
        candidates = tuple(itertools.starmap(Candidate, found))
    columns = (np.concatenate(column) for column in zip(*placed, strict=True))
    return Decoded(*columns, sum(piece.score for piece in pieces), candidates)
