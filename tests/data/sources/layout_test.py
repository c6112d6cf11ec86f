import pickle

import numpy as np
import pytest

from w2v2_jax.data.audio import AudioError, Utterance
from w2v2_jax.data.corpora import CorpusError
from w2v2_jax.data.sources.layout import Chain, Lazy, Lines, rejected, unpacked


def numbered(number):
    return Utterance(str(number), f"{number}.flac", rejected("none: a number has no sound"))


def ids(utterances):
    return [utterance.id for utterance in utterances]


@pytest.mark.parametrize("keys", [range(5), np.arange(5), list(range(5))])
def test_a_lazy_sequence_is_one_of_what_its_keys_make(keys):
    lazy = Lazy(numbered, keys)
    assert len(lazy) == 5
    assert ids(lazy) == ["0", "1", "2", "3", "4"]
    assert (lazy[3].id, lazy[-1].id, ids(lazy[1:3])) == ("3", "4", ["1", "2"])
    with pytest.raises(IndexError):
        lazy[5]


def test_a_lazy_sequence_makes_nothing_that_is_not_asked_for():
    made = []
    lazy = Lazy(lambda key: made.append(key) or numbered(key), range(10**9))
    assert (len(lazy), lazy[123_456_789].id, made) == (10**9, "123456789", [123_456_789])


def test_a_chain_is_its_parts_one_after_the_other():
    chain = Chain([Lazy(numbered, range(2)), [], [numbered(2)], Lazy(numbered, range(3, 6))])
    everything = ["0", "1", "2", "3", "4", "5"]
    assert len(chain) == 6
    assert ids(chain) == everything
    assert [chain[place].id for place in range(6)] == everything
    assert [chain[place - 6].id for place in range(6)] == everything
    assert ids(chain[1:5:2]) == ["1", "3"]
    with pytest.raises(IndexError):
        chain[6]


def test_a_chain_of_nothing_is_empty():
    assert list(Chain([])) == [] and len(Chain([[], []])) == 0


def test_sequences_can_be_given_to_other_processes():
    chain = pickle.loads(pickle.dumps(Chain([Lazy(numbered, range(2)), [numbered(2)]])))
    assert ids(chain) == ["0", "1", "2"]


@pytest.mark.parametrize("end", ["", "\n"])
def test_lines_end_with_a_line_feed_and_with_nothing_else(tmp_path, end):
    texts = ["grüße", "", "a\u2028b\x85c\x0cd", "ende"]
    (tmp_path / "lines.txt").write_bytes(("\n".join(texts) + end).encode())
    lines = Lines(tmp_path / "lines.txt")
    assert list(lines) == texts
    assert [lines[place] for place in range(len(lines))] == texts
    assert (lines[-1], lines[2:]) == ("ende", texts[2:])


def test_an_empty_file_has_no_line(tmp_path):
    (tmp_path / "lines.txt").touch()
    assert list(Lines(tmp_path / "lines.txt")) == []


def test_a_line_that_is_not_utf_8_is_named(tmp_path):
    (tmp_path / "lines.txt").write_bytes(b"one\ngr\xfc\xdfe\n")
    with pytest.raises(CorpusError, match=r"lines\.txt:2: not UTF-8 text \(invalid start byte\): b'gr"):
        Lines(tmp_path / "lines.txt")


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(CorpusError, match=r"none\.txt can't be read: No such file"):
        Lines(tmp_path / "none.txt")


def test_what_is_rejected_raises_its_reason():
    with pytest.raises(AudioError, match=r"^kind: detail$"):
        pickle.loads(pickle.dumps(rejected("kind: detail")))(30.0)


def test_an_archive_may_be_named_by_the_folder_it_is_in_or_by_its_own(tmp_path):
    (tmp_path / "LibriSpeech").mkdir()
    assert unpacked(str(tmp_path), "LibriSpeech") == unpacked(str(tmp_path / "LibriSpeech"), "LibriSpeech")
