import gzip
import json
import os
import shutil
from pathlib import Path

import pytest
from planted import prepared, sound_corpus, wrong

from w2v2_jax.data.corpora import INDEX, INDEXED, CorpusError, corpus_dir
from w2v2_jax.preflight.audio_checks import audio_checks
from w2v2_jax.preflight.corpus import index_check, open_parts, shard_check
from w2v2_jax.preflight.scan import scan


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """Where the sound corpus is."""
    folder = tmp_path_factory.mktemp("sound")
    prepared(sound_corpus(), folder)
    return folder


@pytest.fixture
def data_dir(sound, tmp_path):
    """A copy of it, to be damaged."""
    shutil.copytree(sound, tmp_path / "data")
    return tmp_path / "data"


def shard(data_dir, split):
    [file] = corpus_dir("given", data_dir).glob(f"given-{split}.array_record*")
    return Path(file)


def found_in(data_dir):
    """What is wrong, and the names of what can be read."""
    parts = open_parts("given", "", data_dir)
    scanned = [each for part in parts for each in scan(part, lambda count: None)]
    checks = [
        shard_check("given", [part.split for part in parts], data_dir, lambda count: None),
        index_check(parts),
        *audio_checks(scanned),
    ]
    return wrong(checks), [each.id for each in scanned if not each.unreadable]


ALL = [f"{split}{i}" for split, records in sound_corpus().items() for i in range(len(records))]


def test_a_sound_corpus_has_nothing_wrong(data_dir):
    found, readable = found_in(data_dir)
    assert found == {} and sorted(readable) == sorted(ALL)


def flip(file, place):
    data = bytearray(file.read_bytes())
    data[place] ^= 0x10
    file.write_bytes(data)


def test_a_byte_that_is_changed_in_a_recording_is_found_by_its_shard_and_its_utterance(data_dir):
    file = shard(data_dir, "train")
    flip(file, file.read_bytes().index(b"train3") - 5_000)
    found, readable = found_in(data_dir)
    [damaged] = set(ALL) - set(readable)
    assert found.pop("damaged shard files") == [f"{file.name} has another checksum than when it was written"]
    [case] = found.pop("unreadable")
    assert case.startswith(f"train/{damaged}: ") and "hash mismatch" in case
    assert found == {} and len(readable) == len(ALL) - 1


def test_a_byte_that_is_changed_where_no_record_is_is_found_by_its_shard(data_dir):
    file = shard(data_dir, "dev")
    flip(file, file.stat().st_size - 3_000)  # the padding of the last block
    found, readable = found_in(data_dir)
    assert list(found) == ["damaged shard files"] and len(readable) == len(ALL)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_every_record_of_a_shard_that_is_cut_off_is_found_and_the_other_splits_are_read(data_dir, share):
    file = shard(data_dir, "train")
    size = file.stat().st_size
    os.truncate(file, int(share * size))
    found, readable = found_in(data_dir)
    assert found.pop("damaged shard files") == [f"{file.name} has {int(share * size)} bytes, not {size}"]
    assert [case.split(":")[0] for case in found.pop("unreadable")] == [f"train/train{i}" for i in range(6)]
    assert found == {} and sorted(readable) == sorted(set(ALL) - {f"train{i}" for i in range(6)})


def test_a_shard_that_is_gone_is_found_and_the_other_splits_are_read(data_dir):
    file = shard(data_dir, "test")
    file.unlink()
    found, readable = found_in(data_dir)
    assert found["damaged shard files"] == [f"{file.name} is missing"]
    assert len(found["unreadable"]) == 3 and len(readable) == 8


def test_an_index_that_cannot_be_read_is_found_and_the_records_are_read(data_dir):
    [file] = (corpus_dir("given", data_dir) / INDEX).glob("train-*")
    os.truncate(file, 50)
    found, readable = found_in(data_dir)
    assert [case.split(":")[0] for case in found.pop("damaged index")] == ["train"]
    assert found == {} and len(readable) == len(ALL)


def rewrite(file, change):
    file.write_bytes(gzip.compress(change(gzip.decompress(file.read_bytes()))))


def packed_again(columns):
    return b"\n".join(json.dumps(line).encode() for line in [INDEXED, *columns])


def test_an_index_of_fewer_utterances_is_found(data_dir):
    [file] = (corpus_dir("given", data_dir) / INDEX).glob("train-*")
    rewrite(file, lambda lines: packed_again([values[:-1] for values in map(json.loads, lines.splitlines()[1:])]))
    assert found_in(data_dir)[0] == {"damaged index": ["train: 5 utterances in the index, 6 in the shards"]}


def test_an_index_that_says_otherwise_is_found_by_the_utterance(data_dir):
    [file] = (corpus_dir("given", data_dir) / INDEX).glob("train-*")
    rewrite(file, lambda lines: lines.replace(b"TWO OF US", b"TWO OF THEM"))
    [case] = found_in(data_dir)[0]["index disagrees"]
    assert case == "train/train1: text is 'TWO OF US', in the index 'TWO OF THEM'"


def test_a_split_can_be_looked_at_alone(data_dir):
    [part] = open_parts("given", "dev", data_dir)
    assert (part.split, len(part.records)) == ("dev", 2)


@pytest.mark.parametrize(
    ("name", "split", "message"),
    [
        ("given", "tset", r"no utterances in a split 'tset'; it has train \(6\), dev \(2\), test \(3\)"),
        ("other", "", r"no corpus 'other' under .* \(prepared there: given\)"),
    ],
)
def test_what_is_not_there_is_an_error_that_says_what_is(data_dir, name, split, message):
    with pytest.raises(CorpusError, match=message):
        open_parts(name, split, data_dir)
