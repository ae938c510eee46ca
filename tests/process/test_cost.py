"""What is said of time and memory holds for work whose cost is known."""

import subprocess
import sys
import time

import pytest
from support.processes import work

from regcore.process.cost import Cost


def test_stages_add_up():
    cost, started = Cost(), time.perf_counter()
    for _ in range(2):
        with cost.stage("wait"):
            time.sleep(0.05)
    elapsed = time.perf_counter() - started
    with pytest.raises(KeyError), cost.stage("fail"):
        raise KeyError
    assert 0.099 <= cost.seconds["wait"] <= elapsed
    assert cost.seconds["fail"] >= 0


def measured(work, programs=False) -> Cost:
    cost = Cost()
    with cost.measured(programs):
        work()
    return cost


@pytest.mark.slow
def test_the_peak_is_of_this_block_and_not_of_an_earlier_one():
    """In a process of its own: an earlier test may have told this one to keep freed memory."""
    code = """
from regcore.process.cost import Cost
import numpy as np
for megabytes in (1, 500, 1):
    cost = Cost()
    with cost.measured():
        np.ones(int(megabytes * 1e6), dtype=np.uint8)
    print(cost.peak_memory_mb)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    small, large, again = map(float, done.stdout.split())
    assert large - small == pytest.approx(500, abs=60)
    if sys.platform == "linux":
        assert again < small + 100


def test_memory_and_time_of_a_program_count():
    code = "import time; block = bytearray(b'1') * 400_000_000\nwhile time.process_time() < 0.5: pass\ntime.sleep(0.3)"
    base = measured(lambda: subprocess.run([sys.executable, "-c", "pass"]), programs=True)
    found = measured(lambda: subprocess.run([sys.executable, "-c", code], check=True), programs=True)
    assert found.peak_memory_mb - base.peak_memory_mb > 350
    assert found.cpu_seconds > 0.49


def test_waiting_costs_no_cpu():
    assert measured(lambda: time.sleep(0.3)).cpu_seconds < 0.15
    assert measured(lambda: work(0.2)).cpu_seconds > 0.19
