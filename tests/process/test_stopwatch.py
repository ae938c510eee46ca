"""Seconds over interruptions."""

import time

import pytest
import torch

from regcore.process.stopwatch import Stopwatch, work_clock


def test_time_is_counted_on_and_sleep_is_no_work():
    watch = Stopwatch(seconds=100, cpu_seconds=50)
    time.sleep(0.2)
    seconds, cpu_seconds = watch.read()
    assert 100.2 <= seconds < 110 and 50 <= cpu_seconds < 50.15
    again = Stopwatch(seconds, cpu_seconds)
    sum(range(10**7))
    assert again.read()[0] > seconds and again.read()[1] > cpu_seconds + 0.05


@pytest.mark.parametrize(("device", "clock"), [("cpu", time.process_time), ("cuda", time.monotonic)])
def test_work_on_a_gpu_is_counted_by_the_wall_clock(device, clock):
    assert work_clock(torch.device(device)) is clock
