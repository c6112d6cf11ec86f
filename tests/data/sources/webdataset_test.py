import io
import json
import pickle
import tarfile

import numpy as np
import pytest
import soundfile

from w2v2_jax.data.audio import AudioError
from w2v2_jax.data.corpora import CorpusError, open_split
from w2v2_jax.data.prepare import prepare
from w2v2_jax.data.sources.webdataset import WebDataset, expand, shards_in

NUM_SAMPLES = 800


def sound(seed, kind="FLAC"):
    buffer = io.BytesIO()
    waveform = 0.1 * np.random.default_rng(seed).normal(size=NUM_SAMPLES + seed)
    soundfile.write(buffer, waveform, 16_000, format=kind)
    return buffer.getvalue()


def write(shard, members, mode="w"):
    shard.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(shard, mode, format=tarfile.USTAR_FORMAT) as archive:
        for name, data in members.items():
            data = data.encode() if isinstance(data, str) else data
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def samples(*numbers):
    """Members as `webdataset.ShardWriter` writes them: sorted within a sample."""
    members = {}
    for number in numbers:
        members[f"{number:06d}.flac"] = sound(number)
        members[f"{number:06d}.txt"] = f"TEXT {number}\n"
    return members


@pytest.fixture
def published(tmp_path):
    folder = tmp_path / "shards"
    write(folder / "train-000000.tar", samples(0, 1, 2))
    write(folder / "train-000001.tar", samples(3))
    write(folder / "dev-000000.tar", samples(4))
    return folder


def splits(folder, *members, **options):
    write(folder / "a.tar", *members)
    return WebDataset("mine", (("train", str(folder / "a.tar")),), **options).splits()["train"]


def test_splits_are_the_samples_of_their_shards_in_order(published):
    mine = WebDataset(
        "mine", (("train", f"{published}/train-{{000000..000001}}.tar"), ("dev", f"{published}/dev-*.tar"))
    )
    train, dev = mine.splits().values()
    assert [each.id for each in train] == [
        "train-000000/000000",
        "train-000000/000001",
        "train-000000/000002",
        "train-000001/000003",
    ]
    assert [(each.id, each.text) for each in dev] == [("dev-000000/000004", "TEXT 4")]
    assert [len(each.read(30.0).waveform) for each in train] == [NUM_SAMPLES + number for number in range(4)]


def test_a_split_may_be_of_several_patterns(published):
    patterns = (("train", f"{published}/train-*0.tar"), ("train", f"{published}/train-*1.tar"))
    assert [each.text for each in WebDataset("mine", patterns).splits()["train"]] == [f"TEXT {n}" for n in range(4)]


def test_what_is_known_comes_from_text_json_and_class(tmp_path):
    members = {
        "a.wav": sound(0, "WAV"),
        "a.json": json.dumps({"text": "from json", "speaker": "ada", "language": "de", "duration": 0.05}),
        "b.json": json.dumps({"sentence": "from json", "speaker_id": 7}),
        "b.mp3": sound(1, "MP3"),
        "b.txt": " from text\n",
        "c.cls": "3",
        "c.ogg": sound(2, "OGG"),
        "d.FLAC": sound(3),
        "d.png": b"a spectrogram",
    }
    told = [(each.text, each.speaker, each.language) for each in splits(tmp_path, members, language="en")]
    assert told == [("from json", "ada", "de"), ("from text", "7", "en"), ("3", "", "en"), ("", "", "en")]


def test_keys_end_at_the_first_dot_after_the_folder(tmp_path):
    members = {"x.y/a.b.flac": sound(0), "x.y/a.b.txt": "one", "x.y/c.flac": sound(1), "x.y/c.txt": "two"}
    assert [(each.id, each.text) for each in splits(tmp_path, members)] == [("a/x.y/a", "one"), ("a/x.y/c", "two")]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_archives_of_any_form_are_read_and_what_is_no_sample_is_passed_over(tmp_path, form):
    long = "k" * 90
    members = {"__shardindex__": "0", "README": "no suffix", f"{long}.flac": sound(0), f"{long}.txt": "text"}
    with tarfile.open(tmp_path / "a.tar", "w", format=form) as archive:
        folder = tarfile.TarInfo("folder.d")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, data in members.items():
            data = data if isinstance(data, bytes) else data.encode()
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(data), 1700000000.5  # which takes a header of its own in PAX
            archive.addfile(member, io.BytesIO(data))
    [only] = WebDataset("mine", (("train", str(tmp_path / "a.tar")),)).splits()["train"]
    assert (only.id, only.text, len(only.read(30.0).waveform)) == (f"a/{long}", "text", NUM_SAMPLES)


def test_an_utterance_can_be_read_in_another_process_and_holds_no_audio(published):
    train = WebDataset("mine", (("train", f"{published}/train-*.tar"),)).splits()["train"]
    sent = pickle.dumps(train[2])
    assert len(sent) < NUM_SAMPLES
    assert len(pickle.loads(sent).read(30.0).waveform) == NUM_SAMPLES + 2


def test_published_shards_are_prepared_and_read_back(published, tmp_path):
    report = prepare(WebDataset("mine", (("", str(published)),)), tmp_path / "data", progress=False)
    assert {split: size.kept for split, size in report.splits.items()} == {"dev": 1, "train": 4}
    record = open_split("mine", "train", tmp_path / "data")[3]
    assert (record["id"], record["text"], record["num_samples"]) == ("train-000001/000003", "TEXT 3", NUM_SAMPLES + 3)


@pytest.mark.parametrize(
    ("shards", "expected"),
    [
        (
            ["train-000000.tar", "train-000001.tar", "dev-000000.tar", "train-clean-000000.tar"],
            {"dev": "dev-*", "train": "train-*", "train_clean": "train-clean-*"},
        ),
        (["train/000000.tar", "train/000001.tar", "dev/000000.tar"], {"dev": "dev/*", "train": "train/*"}),
        (["train/shard-000000.tar", "dev/shard-000000.tar"], {"dev": "dev/shard-*", "train": "train/shard-*"}),
        (["train.tar", "dev.tar"], {"dev": "dev", "train": "train"}),
    ],
)
def test_splits_are_told_from_names_and_folders(tmp_path, shards, expected):
    for shard in shards:
        write(tmp_path / shard, samples(0))
    found = dict(shards_in(str(tmp_path)))
    assert found == {split: f"{tmp_path}/{pattern.replace('*', '[0-9]*')}.tar" for split, pattern in expected.items()}
    assert sum(len(expand(pattern)) for pattern in found.values()) == len(shards)


def test_splits_that_names_do_not_tell_are_an_error(tmp_path):
    with pytest.raises(CorpusError, match=r"has no \.tar file at any depth"):
        shards_in(str(tmp_path))
    for shard in ("en/train-0.tar", "en/dev-0.tar", "de/train-0.tar"):
        write(tmp_path / shard, samples(0))
    with pytest.raises(CorpusError, match=r"can't be told from .*de/train-\[0-9\]\*.tar"):
        shards_in(str(tmp_path))


def test_patterns_with_braces_stand_for_numbers_and_names(tmp_path):
    for name in ("x08", "x09", "x10", "y08"):
        write(tmp_path / f"{name}.tar", {})
    assert [file.stem for file in expand(f"{tmp_path}/x{{08..10}}.tar")] == ["x08", "x09", "x10"]
    assert [file.stem for file in expand(f"{tmp_path}/{{y,x}}{{08,08}}.tar")] == ["y08", "y08", "x08", "x08"]
    assert [file.stem for file in expand(str(tmp_path))] == ["x08", "x09", "x10", "y08"]
    with pytest.raises(CorpusError, match=r"there is no shard .*x11\.tar; '.*x\{08\.\.12\}\.tar' should stand for"):
        expand(f"{tmp_path}/x{{08..12}}.tar")


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"a.txt": "text"}, "missing: the sample a has no recording"),
        ({"a.flac": sound(0), "a.json": "{'text'"}, "malformed: what is known of a can't be read"),
        ({"a.flac": sound(0), "a.json": "[1]"}, "malformed: the JSON of a isn't an object"),
        ({"a.flac": sound(0), "a.txt": b"\xff\xfe"}, "malformed: what is known of a can't be read"),
        ({"a.pcm": bytes(9999)}, "headerless: a.pcm has no header"),
        ({"a.flac": b"no audio"}, "unreadable: "),
    ],
)
def test_a_sample_that_cannot_be_read_is_rejected_with_its_reason(tmp_path, members, reason):
    [only] = splits(tmp_path, members)
    with pytest.raises(AudioError, match=reason):
        only.read(30.0)


def test_a_sample_with_two_recordings_is_an_error_that_names_it(tmp_path):
    with pytest.raises(CorpusError, match=r"a\.tar: sample a has two files of a kind, the second is \.noisy\.wav"):
        splits(tmp_path, {"a.clean.wav": sound(0, "WAV"), "a.noisy.wav": sound(1, "WAV")})


def test_an_archive_that_is_compressed_or_cut_off_is_an_error(published):
    pattern = (("train", f"{published}/train-*.tar"),)
    shard = published / "train-000001.tar"
    shard.write_bytes(shard.read_bytes()[:1100])
    with pytest.raises(CorpusError, match=r"train-000001\.tar can't be read as an archive without compression"):
        WebDataset("mine", pattern).splits()
    write(shard, samples(3), mode="w:gz")
    with pytest.raises(CorpusError, match=r"train-000001\.tar can't be read as an archive without compression"):
        WebDataset("mine", pattern).splits()
