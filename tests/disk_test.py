import errno
import os
import shutil

import micro
import pytest
from train_test import levels

from w2v2_jax.disk import DiskFullError, naming_full_disk
from w2v2_jax.metrics import MetricWriter, read_rows

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def caused_by(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        FULL,
        OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
        ValueError(
            "RESOURCE_EXHAUSTED: Failed to write 9 bytes to file 5: No space left on device [os_error_code='28']"
        ),
        caused_by(RuntimeError("it failed"), caused_by(ValueError("so did this"), FULL)),
    ],
)
def test_a_full_disk_is_known_however_it_is_told_and_named(tmp_path, error):
    message = r"is full \([\d,.]+ MB free\): the list could not be written in"
    with pytest.raises(DiskFullError, match=message) as caught, naming_full_disk(tmp_path, "the list"):
        raise error
    assert caught.value.__cause__ is error
    mount = str(caught.value).removeprefix("the disk mounted at ").partition(" is full")[0]
    assert os.path.ismount(mount)
    assert str(tmp_path).startswith(mount)


@pytest.mark.parametrize("error", [PermissionError("no"), ValueError("no"), caused_by(DiskFullError("another"), FULL)])
def test_other_errors_are_as_they_were(tmp_path, error):
    with pytest.raises(type(error)) as caught, naming_full_disk(tmp_path, "the list"):
        raise error
    assert caught.value is error


def test_rows_written_before_the_disk_was_full_are_as_they_were_and_the_file_goes_on(small_disk):
    writer = MetricWriter(small_disk)
    written = 0
    with pytest.raises(OSError, match="No space left"):
        for written in range(10**6):
            writer.write(
                written + 1, {"a name as long as it takes to fill the disk with not too many rows " * 100: 1.0}
            )
    assert [row["step"] for row in read_rows(small_disk / "metrics.jsonl")] == list(range(1, written + 1))
    with pytest.raises(OSError, match="No space left"):
        MetricWriter(small_disk, resume_step=written)
    assert len(read_rows(small_disk / "metrics.jsonl")) == written
    for events in small_disk.glob("events*"):
        events.unlink()
    resumed = MetricWriter(small_disk, resume_step=written // 3)
    resumed.write(written // 3 + 1, {"loss": 1.0})
    resumed.close()
    assert [row["step"] for row in read_rows(small_disk / "metrics.jsonl")] == list(range(1, written // 3 + 2))


@pytest.mark.usefixtures("quick_compilation")
def test_a_run_whose_disk_fills_says_so_and_goes_on_once_there_is_room(small_disk, tmp_path):
    often = {"num_steps": 9, "save_every": 1, "log_every": 2, "eval_every": 4}
    micro.run(levels, tmp_path / "unbroken", **often)
    filler = small_disk / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(small_disk).free - 60_000))
    with pytest.raises(DiskFullError, match=f"disk mounted at {small_disk} is full"):
        micro.run(levels, small_disk / "run", **often)
    filler.unlink()
    micro.run(levels, small_disk / "run", **often)
    micro.assert_same_run(small_disk / "run", tmp_path / "unbroken")
