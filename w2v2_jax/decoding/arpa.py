"""ARPA files, the text form in which n-gram language models are exchanged, and KenLM's binary form of them."""

import array
import collections
import contextlib
import gzip
import io
import itertools
import re
import shutil
import subprocess
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from w2v2_jax.decoding.ngram import END, START, UNKNOWN, Grams, NGramModel
from w2v2_jax.disk import naming_full_disk

NEVER = -100.0
"""log10 probability that `<unk>` has where a file lacks it; KenLM's choice."""


class ArpaError(ValueError):
    """A file that is not a whole ARPA file; the message names the line."""


def write_arpa(model: NGramModel, path: str | Path) -> None:
    """Writes `model` with seven digits a number, compressed if the name ends in `.gz`; equal models give equal bytes.

    `path` appears once all is written. Raises `DiskFullError` where there is no room.
    """
    path = Path(path)
    partial = path.with_name(f"{path.name}.partial")
    try:
        with naming_full_disk(path.parent, "a language model"), contextlib.ExitStack() as stack:
            file = stack.enter_context(partial.open("wb"))
            if path.suffix == ".gz":
                file = stack.enter_context(gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0))
            stack.enter_context(io.TextIOWrapper(file, "utf-8", newline="\n")).writelines(_lines(model))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _lines(model: NGramModel) -> Iterator[str]:
    yield "\\data\\\n"
    for n, grams in enumerate(model.orders, 1):
        yield f"ngram {n}={len(grams.keys)}\n"
    words, texts = list(model.ids), []
    for n, grams in enumerate(model.orders, 1):
        yield f"\n\\{n}-grams:\n"
        contexts, ends = (part.tolist() for part in np.divmod(grams.keys, len(words)))
        texts = [f"{texts[c]} {words[w]}" for c, w in zip(contexts, ends, strict=True)] if texts else words
        rows = zip(grams.log10_probs.tolist(), texts, grams.log10_backoffs.tolist(), strict=True)
        if n < len(model.orders):
            yield from (f"{prob:.7g}\t{text}\t{backoff:.7g}\n" for prob, text, backoff in rows)
        else:
            yield from (f"{prob:.7g}\t{text}\n" for prob, text, _ in rows)
    yield "\n\\end\\\n"


class _Lines:
    """The `rest` of the lines of a file, which ends in an ArpaError only, and the `number` of the last one read."""

    def __init__(self, path: Path, file: Iterable[bytes]):
        self.number, self.rest, self._path = 0, self._read(file), path

    def _read(self, file: Iterable[bytes]) -> Iterator[bytes]:
        try:
            for self.number, line in enumerate(file, 1):
                yield line
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            self.number += 1
            raise self.error(f"the compressed data are damaged ({error}); fetch or write the file again") from error
        self.number += 1
        raise self.error("the file ends before its \\end\\; it is cut off, fetch or write it again")

    def written(self) -> str:
        """The next line that is not blank."""
        while not (line := next(self.rest).strip()):
            pass
        return line.decode(errors="replace")

    def expect(self, wanted: str) -> None:
        """Refuses a next line other than `wanted`."""
        if (found := self.written()) != wanted:
            raise self.error(f"{found[:80]!r} stands where {wanted} has to; do the declared counts fit the n-grams?")

    def error(self, problem: str, number: int = 0) -> ArpaError:
        """What is wrong with the last line read, or with line `number`."""
        return ArpaError(f"{self._path}, line {number or self.number}: {problem}")


def read_arpa(path: str | Path) -> NGramModel:
    r"""The model of an ARPA file, compressed if its name ends in `.gz`.

    `<UNK>` is read as `<unk>`; where a file has neither, unknown words have the log10 probability `NEVER`. What stands
    before `\data\` is to be blank or to begin with `#`. Raises ArpaError, naming the line, for a file that is cut off
    or damaged, that has more or fewer n-grams than it declares, a number that is none, a log10 probability above 0, or
    an n-gram that comes twice or whose words or context are not among the shorter ones.
    """
    path = Path(path)
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        lines = _Lines(path, file)
        counts = _read_counts(lines)
        numbered = collections.defaultdict(itertools.count().__next__)
        unigrams = _read_grams(
            lines, counts[0], lambda word: numbered[UNKNOWN if word == b"<UNK>" else word.decode()], (), 0
        )
        if not {START, END} <= numbered.keys():
            raise lines.error(f"the 1-grams end here without {START} or without {END}; a model needs both")
        if UNKNOWN not in numbered:
            unigrams = Grams(*map(np.append, unigrams, (numbered[UNKNOWN], NEVER, 0.0)))
        ids = {word.encode(): number for word, number in numbered.items()}
        ids[b"<UNK>"] = ids[UNKNOWN.encode()]
        orders = [unigrams]
        for count in counts[1:]:
            orders.append(_read_grams(lines, count, ids.__getitem__, orders, len(numbered)))
        lines.expect("\\end\\")
    return NGramModel(dict(numbered), tuple(orders))


def _read_counts(lines: _Lines) -> list[int]:
    """The numbers of n-grams that the head of the file declares."""
    while (line := lines.written()).startswith("#"):
        pass
    if line != "\\data\\":
        raise lines.error(f"{line[:80]!r} is not the \\data\\ that an ARPA file begins with; is this one?")
    counts = []
    while line := next(lines.rest).strip().decode(errors="replace"):
        declared = re.fullmatch(rf"ngram\s+{len(counts) + 1}\s*=\s*0*([1-9]\d*)", line)
        if not declared:
            raise lines.error(
                f"{line[:80]!r} does not declare one or more {len(counts) + 1}-grams, as `ngram 1=200` would"
            )
        counts.append(int(declared[1]))
    if not counts:
        raise lines.error("no numbers of n-grams follow \\data\\; the file needs lines such as `ngram 1=200`")
    return counts


def _read_grams(
    lines: _Lines, count: int, id_of: Callable[[bytes], int], lower: Sequence[Grams], num_words: int
) -> Grams:
    """The next section, of the order above those of `lower`; for the first of all `num_words` makes no difference."""
    n = len(lower) + 1
    lines.expect(f"\\{n}-grams:")
    first = lines.number + 1
    words, log10_probs, log10_backoffs = array.array("q"), array.array("d"), array.array("d")
    for line in itertools.islice(lines.rest, count):
        fields = line.split()
        try:
            if not n < len(fields) <= n + 2:
                raise ValueError(f"{len(fields)} fields")
            words.extend(map(id_of, fields[1 : n + 1]))
            log10_probs.append(float(fields[0]))
            log10_backoffs.append(float(fields[n + 1]) if fields[n + 1 :] else 0.0)
        except KeyError as error:
            raise lines.error(f"{error.args[0].decode(errors='replace')!r} is not among the 1-grams") from error
        except ValueError as error:
            raise lines.error(
                f"{line.decode(errors='replace').strip()[:80]!r} is not one of the {count} {n}-grams that the file "
                f"declares: a log10 probability, words in UTF-8 ({n}), then a log10 back-off or nothing"
            ) from error
    log10_probs, log10_backoffs = np.array(log10_probs), np.array(log10_backoffs)
    words, contexts = np.array(words, np.int64).reshape(count, n), np.zeros(count, np.int64)
    for grams, word in zip(lower, words.T, strict=False):
        contexts = grams.find(contexts, word, num_words)
    keys = contexts * num_words + words[:, -1]
    order = np.argsort(keys, kind="stable")
    repeated = np.zeros(count, bool)
    repeated[order[1:]] = np.diff(keys[order]) == 0
    for wrong, problem in (
        (~(log10_probs <= 0), "a log10 probability is at most 0"),
        (~(log10_backoffs < np.inf), "a back-off is a finite number"),
        (contexts < 0, f"the first words of this {n}-gram are not among the {n - 1}-grams"),
        (repeated, f"this {n}-gram is in the file already"),
    ):
        if wrong.any():
            raise lines.error(problem, first + int(wrong.argmax()))
    return Grams(keys[order], log10_probs[order], log10_backoffs[order])


def to_binary(arpa: str | Path, path: str | Path) -> None:
    """Writes KenLM's trie of an ARPA file, which decoders map into memory instead of parsing the text.

    KenLM's own `build_binary` does it; none of KenLM's Python packages brings a builder. Raises FileNotFoundError
    where it is not on the PATH and ArpaError with what it says about a file that it refuses.
    """
    builder = shutil.which("build_binary")
    if builder is None:
        raise FileNotFoundError(
            "build_binary is not on the PATH: build KenLM (https://github.com/kpu/kenlm) and add its bin folder, or "
            f"give decoders {arpa} itself"
        )
    built = subprocess.run([builder, "trie", arpa, path], capture_output=True, text=True)
    if built.returncode:
        raise ArpaError(f"build_binary refuses {arpa}: {' '.join(built.stderr.split())}")
