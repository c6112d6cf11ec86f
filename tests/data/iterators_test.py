import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import grain
import jax
import numpy as np
import pytest

from w2v2_jax.batches import AudioBatch
from w2v2_jax.data import iterators
from w2v2_jax.data.iterators import BatchIterator, Host, filled_up, read_ahead, seed_from, share, shuffled, this_host


def counting(number):
    return np.int64(number), np.array([number, -number])


def test_this_host_is_the_process_that_jax_counts():
    assert this_host() == Host(jax.process_index(), jax.process_count()) == Host(0, 1)


@pytest.mark.parametrize("count", [1, 2, 6])
def test_each_host_has_consecutive_rows_of_every_batch(count):
    for index in range(count):
        batches = share(grain.MapDataset.range(24), 6, Host(index, count))
        size = 6 // count
        expected = [range(batch + index * size, batch + index * size + size) for batch in (0, 6, 12, 18)]
        assert [list(batch) for batch in batches] == [list(rows) for rows in expected]


def test_endless_batches_of_one_row_do_not_overflow():
    assert share(grain.MapDataset.range(3).repeat(), 1, Host(0, 1))[10**12] == [10**12 % 3]


def test_rows_that_cannot_be_shared_equally_are_an_error():
    with pytest.raises(ValueError, match=r"6 rows.*by 4 processes.*multiple of 4"):
        share(grain.MapDataset.range(24), 6, Host(0, 4))


@pytest.mark.parametrize("few", [0, iterators.FEW], ids=["Grain's shuffle", "a permutation an epoch"])
def test_every_epoch_has_each_row_once_in_an_order_of_its_own_that_the_seed_decides(few, monkeypatch):
    monkeypatch.setattr(iterators, "FEW", few)
    first, again, other = (shuffled([(range(9), 1.0)], seed) for seed in (3, 3, 4))
    epochs = [[first[place] for place in range(start, start + 9)] for start in range(0, 45, 9)]
    assert all(sorted(epoch) == list(range(9)) for epoch in epochs)
    assert len({*map(tuple, epochs)}) == 5
    assert [again[place] for place in range(9, 18)] == epochs[1] != [other[place] for place in range(9, 18)]


def test_parts_are_mixed_by_their_weights_and_shuffled_by_themselves():
    rows = shuffled([(range(10), 1.0), (range(100, 125), 2.5)], 0)
    drawn = [rows[place] for place in range(350)]
    for part, period, share_of_all in ((range(10), 10, 1 / 3.5), (range(100, 125), 25, 2.5 / 3.5)):
        ours = [row for row in drawn if row in part]
        assert len(ours) == pytest.approx(350 * share_of_all, abs=1)
        assert len({tuple(ours[start : start + period]) for start in range(0, 50, period)}) == 50 // period
        assert all(sorted(ours[start : start + period]) == list(part) for start in range(0, 50, period))
    for count in (7, 35, 70):
        assert sum(row < 100 for row in drawn[:count]) == pytest.approx(count / 3.5, abs=1)


def test_a_mixture_goes_on_without_end():
    rows = shuffled([(range(30), 1.0), (range(100, 150), 1e-6)], 0)
    assert rows[10**12] < 30
    assert len(rows) == sys.maxsize


@pytest.mark.parametrize("rows, batches", [(0, 0), (1, 1), (4, 1), (5, 2)])
def test_filler_completes_the_last_batch(rows, batches):
    filled = list(filled_up(grain.MapDataset.range(rows).map(counting), 4, counting(0)))
    assert [int(number) for number, _ in filled] == list(range(rows)) + [0] * (4 * batches - rows)


def test_a_finite_pass_ends():
    assert [list(batch) for batch in read_ahead(grain.MapDataset.range(4).batch(2), num_workers=0)] == [[0, 1], [2, 3]]


def test_a_closed_iterator_goes_on_where_it_was():
    rows = grain.MapDataset.range(3).repeat().map(counting)
    batches = BatchIterator(rows.map(lambda row: AudioBatch(*row)), num_workers=0)
    assert [batch.samples for batch in itertools.islice(batches, 2)] == [0, 1]
    batches.close()
    assert [batch.samples for batch in itertools.islice(batches, 3)] == [2, 0, 1]
    assert batches.get_state() == {"step": 5}


def test_seeds_are_distinct_and_fit_in_32_bits():
    seeds = {seed_from(*numbers) for numbers in itertools.product(range(5), range(5))} | {seed_from(2**40)}
    assert len(seeds) == 26
    assert all(0 <= seed < 2**32 for seed in seeds)


def working(batches):
    """Two workers, which give one after the other."""
    next(batches), next(batches)
    return multiprocessing.active_children()


@pytest.mark.slow
def test_workers_are_deaf_to_signals_that_are_meant_for_the_run():
    batches = read_ahead(grain.MapDataset.range(10**6), num_workers=2)
    workers = working(batches)
    for worker in workers:
        os.kill(worker.pid, signal.SIGTERM)
        os.kill(worker.pid, signal.SIGINT)
    assert list(itertools.islice(batches, 100)) == list(range(2, 102))
    assert all(worker.is_alive() for worker in workers)
    batches.close()
    assert not multiprocessing.active_children()


KILLED_WITH_WORKERS = """
import os, signal, sys
sys.path.insert(0, {folder!r})
if __name__ == "__main__":
    import grain
    from iterators_test import read_ahead, working
    workers = working(read_ahead(grain.MapDataset.range(10**6), num_workers=2))
    print(*(worker.pid for worker in workers), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_workers_of_a_killed_run_end(tmp_path):
    script = tmp_path / "killed.py"
    script.write_text(KILLED_WITH_WORKERS.format(folder=str(Path(__file__).parent)))
    killed = subprocess.run([sys.executable, script], stdout=subprocess.PIPE, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    pids = [int(pid) for pid in killed.stdout.split()]
    assert len(pids) == 2
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        time.sleep(0.05)
