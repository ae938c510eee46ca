"""A worker survives whatever the called function does to its process."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from regcore.process.isolation import CallFailed, Worker

TRICKS = """
import ctypes, os, subprocess, sys, tempfile, time

def add(a, b):
    return {"sum": a + b, "pid": os.getpid(), "threads": os.environ["OMP_NUM_THREADS"], "folder": tempfile.mkdtemp()}

def fail():
    os.write(2, b"C library: out of ideas\\n")
    raise ValueError("no such thing")

def crash():
    os.write(2, b"about to touch nothing\\n")
    ctypes.string_at(0)

def leave():
    os._exit(3)

def hang(path):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    open(path, "w").write(str(child.pid))
    time.sleep(60)

def shout():
    print("x" * 20000)
    raise RuntimeError("loud")
"""


def wait_for_the_end_of(process: int) -> None:
    command = Path(f"/proc/{process}/cmdline")
    deadline = time.perf_counter() + 10
    while command.exists() and command.read_bytes():
        assert time.perf_counter() < deadline, f"process {process} still runs"
        time.sleep(0.05)


@pytest.fixture
def worker(tmp_path, monkeypatch):
    (tmp_path / "tricks.py").write_text(TRICKS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with Worker(threads=3) as made:
        yield made


def test_calls_share_one_process_with_its_threads(worker):
    first, second = (worker.call("tricks:add", 2, n, seconds=60) for n in (3, 4))
    assert (first["sum"], second["sum"]) == (5, 6)
    assert first["pid"] == second["pid"] != os.getpid()
    assert first["threads"] == "3"


def test_what_is_raised_is_told_with_what_was_printed(worker):
    with pytest.raises(CallFailed, match=r"^ValueError: no such thing$") as told:
        worker.call("tricks:fail", seconds=60)
    assert "C library: out of ideas" in told.value.printed and "Traceback" in told.value.printed
    assert worker.call("tricks:add", 1, 1, seconds=60)["sum"] == 2
    with pytest.raises(CallFailed) as told:
        worker.call("tricks:shout", seconds=60)
    assert len(told.value.printed) == 8000 and "out of ideas" not in told.value.printed


@pytest.mark.parametrize(("trick", "reason"), [("crash", r"signal 11 \(Segm"), ("leave", "status 3")])
def test_a_crash_costs_one_call(worker, trick, reason):
    before = worker.call("tricks:add", 1, 1, seconds=60)
    with pytest.raises(CallFailed, match=reason) as told:
        worker.call(f"tricks:{trick}", seconds=60)
    assert ("about to touch nothing" in told.value.printed) == (trick == "crash")
    assert worker.call("tricks:add", 1, 1, seconds=60)["pid"] != before["pid"]
    assert not Path(before["folder"]).exists(), "what the call left behind is gone"


def test_what_takes_too_long_is_stopped_with_all_that_it_started(worker, tmp_path):
    worker.call("tricks:add", 1, 1, seconds=60)
    started = time.perf_counter()
    with pytest.raises(CallFailed, match=r"longer than 2 s"):
        worker.call("tricks:hang", str(tmp_path / "pid"), seconds=2)
    assert time.perf_counter() - started < 20
    wait_for_the_end_of(int((tmp_path / "pid").read_text()))
    assert worker.call("tricks:add", 1, 1, seconds=60)["sum"] == 2


def test_a_killed_owner_takes_the_call_with_it(tmp_path):
    """Also what the call had started, a tool's program say, does not run on."""
    (tmp_path / "tricks.py").write_text(TRICKS)
    call = f"Worker(1).call('tricks:hang', {str(tmp_path / 'pid')!r}, seconds=60)"
    owner = f"from regcore.process.isolation import Worker\n{call}"
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    with subprocess.Popen([sys.executable, "-c", owner], env=environment) as running:
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            assert running.poll() is None
            time.sleep(0.05)
        running.kill()
    wait_for_the_end_of(int((tmp_path / "pid").read_text()))
