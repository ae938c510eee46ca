"""Work that takes a known time."""

import time


def work(cpu_seconds: float) -> None:
    """Keep this process busy until it has used so much CPU time, on a fast machine and on a slow one."""
    until = time.process_time() + cpu_seconds
    while time.process_time() < until:
        pass
