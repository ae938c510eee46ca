"""Seconds over interruptions."""

import time

import pytest
import torch
from support.processes import work

from regcore.process.stopwatch import Stopwatch, work_clock


def test_time_is_counted_on_and_sleep_is_no_work():
    started = time.monotonic()
    watch = Stopwatch(seconds=100, cpu_seconds=50)
    time.sleep(0.2)
    seconds, cpu_seconds = watch.read()
    assert 100.199 <= seconds <= 100.001 + time.monotonic() - started
    assert 50 <= cpu_seconds < 50.15
    again = Stopwatch(seconds, cpu_seconds)
    work(0.1)
    assert again.read()[0] > seconds + 0.099 and again.read()[1] > cpu_seconds + 0.099


@pytest.mark.parametrize(("device", "clock"), [("cpu", time.process_time), ("cuda", time.monotonic)])
def test_work_on_a_gpu_is_counted_by_the_wall_clock(device, clock):
    assert work_clock(torch.device(device)) is clock
