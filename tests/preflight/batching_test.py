import dataclasses

import micro
import pytest

from w2v2_jax.data.buckets import Bucket, FixedBuckets
from w2v2_jax.data.corpora import CorpusError
from w2v2_jax.data.pipeline import Clips, Transcribed
from w2v2_jax.data.records import Corpus
from w2v2_jax.data.text import LETTERS
from w2v2_jax.experiment import DevSet, DevSets, Experiment
from w2v2_jax.optimizers import Adam, PolynomialDecay
from w2v2_jax.preflight.batching import (
    Batching,
    check_batches,
    check_kinds,
    feeding_checks,
    labels_of,
    vocabulary_checks,
)
from w2v2_jax.preflight.text_checks import PAPER


@dataclasses.dataclass(frozen=True)
class Lengths:
    """Utterances of so many samples, without sound; of one that is negative not even that can be read."""

    lengths: tuple

    def records(self):
        return _Records(self.lengths)


class _Records(list):
    def __getitem__(self, index):
        if (length := super().__getitem__(index)) < 0:
            raise CorpusError(f"record {index} is damaged")
        return {"audio": b"", "num_samples": length, "text": "AB", "id": f"u{index}"}


CLIPS = Clips(Lengths((16_000,) * 7 + (8_000, 400)), 4, 16_000, normalise=False, min_samples=8_000)
BUCKETS = FixedBuckets((Bucket(8_000, 4, 4), Bucket(16_000, 2, 4)))
TRANSCRIBED = Transcribed(Lengths((4_000,) * 8 + (12_000,) * 4), LETTERS, BUCKETS, normalise=False)


def experiment(train, valid=CLIPS, task=None, **settings):
    optimizer = Adam(PolynomialDecay(peak=1e-3, warmup_steps=1))
    return Experiment(
        "planted", task or micro.pretraining_task(), train, valid, optimizer, **{"num_steps": 100} | settings
    )


def checks_of(*arguments, hosts=1, **settings):
    batching = check_batches(experiment(*arguments, **settings), hosts, lambda count: None)
    return {check.name: check for check in batching.checks}


def test_clips_by_numbers():
    checks = checks_of(CLIPS)
    left_out = checks["train: left out, too short"]
    assert (left_out.verdict, left_out.number, left_out.cases) == ("info", 1, ("u8: 0.03 s",))
    assert checks["train: padding to 1.00 s"].number == pytest.approx(100 * 0.5 / 8)
    assert checks["train: updates an epoch"].number == 2
    assert checks["train: updates an epoch"].cases == ("100 updates are 50 epochs",)
    assert checks["train: audio an update"].number == pytest.approx(7.5 / 2 / 3600)
    assert checks["train: 1 process in step"].number == 2
    assert checks["valid: 1 process in step"].number == 2
    assert {check.verdict for check in checks.values()} == {"info", "sound"}


def test_buckets_by_numbers():
    checks = checks_of(TRANSCRIBED)
    assert checks["train: padding to 0.50 s"].number == 50
    assert checks["train: padding to 0.50 s"].cases == ("8 utterances in batches of 4 x 0.50 s",)
    assert checks["train: padding to 1.00 s"].number == 25
    assert checks["train: updates an epoch"].number == 8 / 4 + 4 / 2
    assert checks["train: audio an update"].number == pytest.approx((8 * 0.25 + 4 * 0.75) / 4 / 3600)
    assert check_batches(experiment(TRANSCRIBED), 1, lambda count: None).edges == [0.5, 1.0]


def test_no_more_steps_are_compared_than_there_are():
    assert checks_of(CLIPS, num_steps=1)["train: 1 process in step"].number == 1


def test_an_update_can_be_as_short_as_a_process_takes_to_decode_its_rows():
    assert feeding_checks(check_batches(experiment(CLIPS), 2, lambda count: None), 10.0)[0].number == 4 / 2 / 10.0
    assert feeding_checks(Batching([], [], 0.0), 10.0) == []


def test_a_batch_that_processes_cannot_share_is_an_error_and_its_steps_are_not_compared():
    checks = checks_of(TRANSCRIBED, hosts=4)
    uneven = checks["train: uneven for 4 processes"]
    assert (uneven.verdict, uneven.number) == ("error", 1)
    assert uneven.cases == ("2 rows of 1.00 s: make it a multiple of 4",)
    assert "train: 4 processes in step" not in checks
    assert checks["valid: 4 processes in step"].verdict == "sound"


@pytest.mark.parametrize("data", [CLIPS, TRANSCRIBED], ids=["clips", "transcribed"])
def test_processes_that_can_share_a_batch_are_in_step(data):
    checks = checks_of(data, data, hosts=2)
    assert checks["train: 2 processes in step"].verdict == "sound"
    assert checks["valid: 2 processes in step"].verdict == "sound"


def test_a_batch_larger_than_the_corpus_is_a_warning():
    check = checks_of(dataclasses.replace(CLIPS, batch_size=32))["train: updates an epoch"]
    assert (check.verdict, check.number) == ("warning", 0.25)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (Lengths((4_000, -1)), "record 1 is damaged"),
        (Corpus("missing", "train", "nowhere"), "no corpus 'missing' under nowhere"),
        (Lengths((4_000, 99_000)), "'u1' has 99000 samples"),
        (Lengths((4_000, 399)), "'u1' has 399 samples"),
    ],
)
def test_what_a_run_would_end_with_is_an_error_and_the_other_data_is_checked(source, message):
    checks = checks_of(dataclasses.replace(TRANSCRIBED, source=source))
    assert checks["train: batches"].verdict == "error" and message in checks["train: batches"].cases[0]
    assert checks["valid: 1 process in step"].verdict == "sound"


def test_several_dev_sets_are_each_looked_at_by_their_names():
    damaged = dataclasses.replace(CLIPS, source=Corpus("missing", "train", "nowhere"))
    checks = checks_of(CLIPS, DevSets((DevSet("german", CLIPS), DevSet("french", damaged))))
    assert checks["valid german: 1 process in step"].verdict == "sound"
    assert checks["valid french: batches"].verdict == "error"
    with pytest.raises(ValueError, match="planted learns from Melodies"):
        check_kinds(experiment(CLIPS, DevSets((DevSet("german", CLIPS), DevSet("sung", micro.Melodies())))))


def test_data_of_another_kind_is_an_error_before_anything_is_read():
    with pytest.raises(ValueError, match="planted learns from Melodies, of which it isn't known"):
        check_kinds(experiment(micro.Melodies()))


def test_texts_are_spelled_and_framed_as_the_experiment_does():
    labels = labels_of(experiment(TRANSCRIBED, task=micro.ctc_task()))
    assert labels.encoder is LETTERS
    assert [labels.num_frames(n) for n in (29, 30, 49, 50)] == [0, 1, 1, 2]  # a frame sees 30, starts every 20
    assert labels_of(experiment(CLIPS)) == PAPER


def test_an_experiment_without_texts_has_no_vocabulary():
    assert vocabulary_checks(CLIPS, []) == []
    assert [check.name for check in vocabulary_checks(TRANSCRIBED, [])] == ["outside the vocabulary"]
