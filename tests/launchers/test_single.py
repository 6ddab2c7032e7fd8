"""One job in containers at a time, by a lock that no other user can hold."""

import subprocess
import sys
from pathlib import Path

import pytest

from fmnist.errors import BadInput
from jobs.single import only

HOLD = "import sys; from jobs.single import only\nwith only(sys.argv[1]): print('held', flush=True); sys.stdin.read()"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("signum", [9, 15])
def test_a_second_job_is_refused_until_the_first_has_ended_however_it_does(cache: Path, signum: int) -> None:
    command = [sys.executable, "-c", HOLD, "tune run"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        assert first.stdout
        assert first.stdout.readline() == b"held\n"
        with pytest.raises(BadInput, match="`tune run` is at work"), only("tune run"):
            pass
        with only("train run"):
            pass
        first.send_signal(signum)
        first.wait()
    with only("tune run"):
        pass
    assert list(cache.rglob("*.lock")) == []


def test_the_folder_of_the_locks_is_the_users_alone(cache: Path) -> None:
    with only("tune run"):
        (lock,) = cache.rglob("*.lock")
        assert lock.parent.stat().st_mode & 0o077 == 0
