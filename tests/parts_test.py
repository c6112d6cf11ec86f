import numpy as np
import pytest

from w2v2_jax.parts import SIZE, Parts, written

COUNT = 2 * SIZE + 3
IDS, NUM_SAMPLES = np.array([f"{number}" for number in range(COUNT)], object), 7 * np.arange(COUNT) % 100


def test_every_utterance_is_in_one_part_and_parts_go_from_short_to_long(tmp_path):
    parts = Parts(tmp_path, IDS, NUM_SAMPLES, "")
    places = [place for part in range(len(parts)) for place in parts.places(part)]
    assert sorted(places) == list(range(COUNT))
    lengths = NUM_SAMPLES[places].tolist()
    assert lengths == sorted(lengths)


def test_processes_share_what_is_missing(tmp_path):
    parts = Parts(tmp_path, IDS, NUM_SAMPLES, "")
    parts.file(1).write_text("done")
    assert parts.missing() == [0, 2]
    assert [parts.missing((index, 2)) for index in (0, 1)] == [[0, 2], []]


def test_a_file_that_was_not_written_whole_is_not_there(tmp_path):
    with pytest.raises(KeyboardInterrupt), written(tmp_path / "part") as unfinished:
        unfinished.write_text("half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_corpus_without_utterances_has_no_part(tmp_path):
    assert len(Parts(tmp_path, IDS[:0], NUM_SAMPLES[:0], "")) == 0
