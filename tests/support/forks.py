"""A process that has loaded Snakemake, torch and the package, and forks for each run of Snakemake and of a job.

Loading them takes five to ten seconds, and the suite starts hundreds of such processes.  The tests start this file as a
program; each of them forks from one that has loaded everything, and none sees what another changed.
"""

import contextlib
import functools
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
#: Modules that Snakemake, torch and others load only where they use them, which almost every run of them does.
LATE = (
    *("snakemake.cli", "snakemake.script", "snakemake.storage", "snakemake.report.html_reporter"),
    *("nbformat", "requests"),
    *("torch._dynamo", "pyarrow.parquet", "pyarrow.dataset", "pyarrow.pandas_compat", "pandas.io.parquet"),
    *("scipy.stats", "nilearn", "matplotlib.pyplot", "PIL.JpegImagePlugin", "PIL.PngImagePlugin"),
)
#: What runs in place of Python for a file or a module: it has that forked, or runs Python where this is neither.
STAND_IN = """#!{python} -SE
import json, os, socket, sys
arguments = sys.argv[1:]
if arguments[:1] == ["-u"]:
    del arguments[0]
if not arguments or not (arguments[0].endswith(".py") or arguments[0] == "-m"):
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
request = {{"program": "python", "arguments": arguments, "folder": os.getcwd(), "environment": dict(os.environ)}}
socket.send_fds(server, [b" "], [0, 1, 2])
server.sendall(json.dumps(request).encode() + b"\\n")
status = server.makefile().readline()
sys.exit(int(status) if status else 1)
"""


def forked(program, arguments, folder, environment, output):
    """Run ``snakemake`` or a file of Python; its output goes to the open file ``output``; return the exit status."""
    request = {"program": program, "arguments": [str(a) for a in arguments], "folder": str(folder)}
    with socket.socket(socket.AF_UNIX) as server, open(os.devnull) as nothing:
        server.connect(_address())
        socket.send_fds(server, [b" "], [nothing.fileno(), output.fileno(), output.fileno()])
        server.sendall(json.dumps({**request, "environment": environment}).encode() + b"\n")
        status = server.makefile().readline()
    assert status, "the process that forks for the tests has died"
    return int(status)


def quick_python() -> str:
    """Path of what runs in place of Python, and starts at once."""
    return str(_stand_in(_address()))


def _stand_in(address: str) -> Path:
    return Path(address).with_name("python")


@functools.cache
def _address():
    """The server's address; it ends with this process, whose end of the pipe to it is then closed."""
    folder = tempfile.TemporaryDirectory(prefix="forks-")
    address = f"{folder.name}/socket"
    server = subprocess.Popen([sys.executable, __file__, address], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert server.stdout.readline() == b"ready\n"
    _address.kept = folder, server  # as long as this process lives
    return address


def _load() -> None:
    import numba

    from regcore.methods import METHODS, method_type

    for name in LATE:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    numba.njit(lambda: None)()  # Numba learns its types where it compiles for the first time

    for name in METHODS:
        with contextlib.suppress(Exception):  # where a tool is missing, the study says so
            method_type(name)
    for path in sorted((TESTS.parent / "regcore").rglob("*.py")):
        if {"study", "reporting", "papers", "experiments", "synthesis", "evaluation"} & set(path.parts):
            with contextlib.suppress(Exception):
                __import__(".".join(path.relative_to(TESTS.parent).with_suffix("").parts).removesuffix(".__init__"))


def _serve(address: str) -> None:
    sys.path[0] = str(Path(sys.executable).parent)  # as for the command itself
    _load()
    stand_in = _stand_in(address)
    stand_in.write_text(STAND_IN.format(python=sys.executable, address=address))
    stand_in.chmod(0o755)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(64)
    os.write(1, b"ready\n")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        ready, _, _ = select.select([listener, 0], [], [])
        if 0 in ready:  # the tests have ended
            return
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            _answer(connection, str(stand_in))
            os._exit(0)
        connection.close()


def _answer(connection: socket.socket, stand_in: str) -> None:
    """Fork once more, so that a run that is killed has its status told too."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, streams, _, _ = socket.recv_fds(connection, 1, 3)
    request = json.loads(connection.makefile().readline())
    child = os.fork()
    if child == 0:
        connection.close()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        os._exit(_run(stand_in, **request))
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with contextlib.suppress(BrokenPipeError):
        connection.sendall(f"{status if status >= 0 else 128 - status}\n".encode())


def _run(stand_in: str, program: str, arguments: list[str], folder: str, environment: dict[str, str]) -> int:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    added = environment.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[1:1] = [path for path in added if path and path not in sys.path]
    try:
        if program == "snakemake":
            sys.executable, sys.argv = stand_in, [program, *arguments]
            sys.modules["snakemake.cli"].main()
        elif arguments[0] == "-m":  # a module that starts others, as torchrun does
            sys.executable, sys.argv, sys.path[0] = stand_in, arguments[1:], folder
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv, sys.path[0] = arguments, str(Path(arguments[0]).parent)
            runpy.run_path(arguments[0], run_name="__main__")
        status = 0
    except SystemExit as done:
        if isinstance(done.code, str):
            print(done.code, file=sys.stderr)
        status = done.code if isinstance(done.code, int) else int(done.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return status


if __name__ == "__main__":
    _serve(sys.argv[1])
