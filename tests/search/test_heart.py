"""A training that has come to a stop gives its trial back; a slow one keeps it."""

import time

import pytest
from searching import Search, log

from fmnist.errors import EXIT_INTERRUPTED
from fmnist.search.heart import Watch

LEASE, BEAT = 60.0, 20.0
SEARCH = {"trials": 3, "epochs": 3}


def stops_after(watch: Watch, cpu: float, most: float = 1e5) -> float:
    """The seconds after which the watch says so, in a process that computes `cpu` seconds a second."""
    waited = 0.0
    while waited < most:
        waited += BEAT
        if watch.beat(BEAT, cpu * BEAT):
            return waited
    return waited


@pytest.mark.parametrize(
    ("longest", "cpu", "expected"),
    [
        (0.0, 0.0, 20 * LEASE),
        (0.0, 0.9, 240 * LEASE),
        (5.0, 0.0, 2 * LEASE),
        (30.0, 0.0, 300.0),
        (5.0, 0.9, 20 * LEASE),
        (1800.0, 0.9, 18000.0),
        (1800.0, 0.0, 18000.0),
    ],
)
def test_how_long_an_epoch_may_take(longest: float, cpu: float, expected: float) -> None:
    watch = Watch(LEASE)
    watch.progress(longest)
    assert stops_after(watch, cpu) == pytest.approx(expected, abs=BEAT)


def test_an_epoch_that_computes_now_and_then_is_slow_and_not_idle() -> None:
    watch = Watch(LEASE)
    watch.progress(5.0)
    assert not any(watch.beat(BEAT, cpu) for _ in range(18) for cpu in (0.0, 0.0, BEAT))


def test_each_epoch_has_its_own_time() -> None:
    watch = Watch(LEASE)
    for _ in range(100):
        assert not any(watch.beat(BEAT, 0.0) for _ in range(6))
        watch.progress(5.0)


def test_a_worker_whose_epoch_hangs_gives_its_trial_back(search: Search) -> None:
    search.chief(lease=0.3)
    search.ends_alone(search.worker("worker-0", fail="hang:9"), EXIT_INTERRUPTED)
    assert "trial 0 has come to a stop" in log(search.path)
    begin = time.monotonic()
    search.worker("worker-1")
    search.ends()
    search.is_whole()
    assert time.monotonic() - begin < 20
