"""Processes that are quick to start, and work that takes a known time."""

import multiprocessing
import time
from collections.abc import Callable

import torch


def forked(function: Callable, *arguments) -> multiprocessing.Process:
    """Start ``function`` in a process forked from this one, which need not load torch again.

    Torch computes in one thread there: its others do not survive a fork.
    """
    process = multiprocessing.get_context("fork").Process(target=_in_one_thread, args=(function, *arguments))
    process.start()
    return process


def _in_one_thread(function: Callable, *arguments) -> None:
    torch.set_num_threads(1)
    function(*arguments)


def work(cpu_seconds: float) -> None:
    """Keep this process busy until it has used so much CPU time, on a fast machine and on a slow one."""
    until = time.process_time() + cpu_seconds
    while time.process_time() < until:
        pass
