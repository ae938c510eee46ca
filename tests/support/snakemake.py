"""Running the repository's workflow.

Snakemake, torch and the package take ten seconds to load, and the suite starts Snakemake dozens of times.  So one
process loads them once, and forks for each run.
"""

import atexit
import contextlib
import functools
import json
import os
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from types import SimpleNamespace

import yaml

from support.paths import BIN, ROOT

WORKFLOW = ["--snakefile", ROOT / "workflow" / "Snakefile", "--workflow-profile", ROOT / "workflow/profiles/default"]


def environment():
    return {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}


def snakemake(folder, *arguments, config=None):
    """Run Snakemake in ``folder`` on this repository's workflow; return its exit status and output."""
    if config is not None:
        path = folder / "config.yaml"
        path.write_text(yaml.safe_dump(config))
        arguments = ["--configfile", path, *arguments]
    return snakemake_command(ROOT, *WORKFLOW, "--directory", folder, *arguments)


def snakemake_command(folder, *arguments):
    """Run ``snakemake`` with these arguments in a folder; return its exit status and output."""
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch, "output")
        request = {"folder": folder, "arguments": arguments, "output": output, "environment": environment()}
        server = _server()
        server.stdin.write(json.dumps(request, default=str) + "\n")
        server.stdin.flush()
        answer = server.stdout.readline()
        text = output.read_text() if output.exists() else ""
    assert answer, "the process that runs Snakemake for the tests has died"
    return SimpleNamespace(returncode=int(answer), output=text)


@functools.cache
def _server():
    pipe = subprocess.PIPE
    command = [sys.executable, "-m", "support.snakemake"]
    server = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment(), cwd=ROOT / "tests")
    atexit.register(server.stdin.close)
    return server


def _serve():
    """Fork for every request on standard input, and answer with the exit status."""
    from snakemake.cli import main

    from regcore.methods import METHODS, method_type

    for name in METHODS:
        with contextlib.suppress(Exception):  # where a tool is missing, the study says so
            method_type(name)
    sys.path.remove(str(ROOT / "tests"))  # jobs are not to find the tests' folders
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            os._exit(_run(main, **request))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _run(main, folder, arguments, output, environment):
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    with open(output, "wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.argv = ["snakemake", *arguments]
    try:
        main()
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
    _serve()
