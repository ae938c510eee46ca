"""Calls to code that may crash, hang or print: a worker in a separate process, with a time limit.

The worker is a fresh interpreter that reads calls from a pipe, one JSON line each, and answers in the same way.  It
serves many calls, so that libraries are loaded once, and is replaced after a call that killed it.
"""

import contextlib
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from typing import IO, Any

from regcore.process.threads import thread_environment, tune_process

#: Characters kept of a failed call's output.
KEPT = 8000


class CallFailed(Exception):
    """A call failed.

    Parameters
    ----------
    reason : str
        What happened, in one sentence.
    printed : str
        The end of what the call wrote to standard output and standard error.

    Examples
    --------
    >>> from regcore.process.isolation import CallFailed
    >>> failed = CallFailed("took longer than 5 s and was stopped", printed="iteration 12")
    >>> str(failed), failed.printed
    ('took longer than 5 s and was stopped', 'iteration 12')
    """

    def __init__(self, reason: str, printed: str):
        super().__init__(reason)
        self.printed = printed


def _input(process: subprocess.Popen) -> IO[bytes]:
    """Where a process that was started with a pipe for its input reads from."""
    assert process.stdin is not None
    return process.stdin


class Worker:
    """Calls functions of modules in another process; use it as a context manager.

    Parameters
    ----------
    threads : int
        Threads that its libraries may use.

    Examples
    --------
    >>> from regcore.process.isolation import Worker
    >>> with Worker(threads=1) as worker:
    ...     worker.call("math:sqrt", 9, seconds=60)
    3.0
    """

    def __init__(self, threads: int):
        self._threads = threads
        self._process: subprocess.Popen | None = None
        self._printed = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the worker)
        self._folder: tempfile.TemporaryDirectory | None = None

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_) -> None:
        self._stop()
        self._printed.close()

    def call(self, function: str, *arguments: Any, seconds: float) -> Any:
        """Call ``module:function`` with arguments that can be written as JSON.

        Returns
        -------
        Whatever the function returns, through JSON.

        Raises
        ------
        CallFailed
            The function raised, took longer than ``seconds``, or ended its process.
        """
        process = self._process or self._start()
        begin = self._printed.seek(0, os.SEEK_END)
        try:
            _input(process).write(json.dumps([function, arguments]).encode() + b"\n")
            _input(process).flush()
            ready, _, _ = select.select([self._answers], [], [], seconds)
            line = self._answers.readline() if ready else None
        except BrokenPipeError:
            line = b""
        except BaseException:
            self._stop()
            raise
        if not line:
            reason = f"took longer than {seconds:g} s and was stopped" if line is None else self._how_it_ended(process)
            self._stop()
            raise CallFailed(reason, self._since(begin))
        answer = json.loads(line)
        if "raised" in answer:
            raise CallFailed(answer["raised"], self._since(begin))
        return answer["returned"]

    def _start(self) -> subprocess.Popen:
        reading, writing = os.pipe()
        self._folder = tempfile.TemporaryDirectory(
            prefix="regcore-worker-"
        )  # for files that a killed call leaves behind
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(writing)],
            stdin=subprocess.PIPE,
            stdout=self._printed,
            stderr=self._printed,
            pass_fds=[writing],
            env={**thread_environment(self._threads), "TMPDIR": self._folder.name},
            start_new_session=True,  # so that programs it starts can be stopped with it
        )
        os.close(writing)
        self._answers = os.fdopen(reading, "rb")
        return self._process

    def _stop(self) -> None:
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        with contextlib.suppress(BrokenPipeError):
            _input(self._process).close()
        self._answers.close()
        if self._folder is not None:
            self._folder.cleanup()
        self._process = None

    def _how_it_ended(self, process: subprocess.Popen) -> str:
        status = process.wait()
        if status < 0:
            return f"was ended by signal {-status} ({signal.strsignal(-status)})"
        return f"ended its process with status {status}"

    def _since(self, begin: int) -> str:
        self._printed.seek(max(begin, self._printed.seek(0, os.SEEK_END) - KEPT))
        return self._printed.read().decode(errors="replace")


def serve(answers: int) -> None:
    """Answer calls until there are no more (runs in the worker).

    Parameters
    ----------
    answers : int
        File descriptor for the answers; standard output is left to the called functions.
    """
    tune_process()  # the same as for methods that run in the job's own process
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    with os.fdopen(answers, "w") as out:
        for line in sys.stdin:
            function, arguments = json.loads(line)
            module, _, name = function.partition(":")
            try:
                answer = {"returned": getattr(importlib.import_module(module), name)(*arguments)}
            except Exception as error:
                traceback.print_exc()
                answer = {"raised": f"{type(error).__name__}: {error}"}
            out.write(json.dumps(answer) + "\n")
            out.flush()


def _end_with(owner: int) -> None:
    """End this process and its programs when the owner is gone."""
    while os.getppid() == owner:
        time.sleep(1)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
