"""Running the repository's workflow, and its command beside it."""

import os
import subprocess
import tempfile
from types import SimpleNamespace

import yaml

from support.forks import forked
from support.paths import BIN, ROOT

WORKFLOW = ["--snakefile", ROOT / "workflow" / "Snakefile", "--workflow-profile", ROOT / "workflow/profiles/default"]


def environment():
    return {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}


def snakemake(folder, *arguments, config=None, afresh=False):
    """Run Snakemake in ``folder`` on this repository's workflow; return its exit status and output.

    ``afresh``: in processes that load everything themselves, for a package that ``PYTHONPATH`` replaces.
    """
    if config is not None:
        path = folder / "config.yaml"
        path.write_text(yaml.safe_dump(config))
        arguments = ["--configfile", path, *arguments]
    return snakemake_command(ROOT, *WORKFLOW, "--directory", folder, *arguments, afresh=afresh)


def snakemake_command(folder, *arguments, afresh=False):
    """Run ``snakemake`` with these arguments in a folder; return its exit status and output."""
    with tempfile.TemporaryFile("w+") as output:
        if afresh:
            command = [BIN / "snakemake", *arguments]
            done = subprocess.run(list(map(str, command)), cwd=folder, stdout=output, stderr=output, env=environment())
            status = done.returncode
        else:
            status = forked("snakemake", arguments, folder, environment(), output)
        return _ended(status, output)


def regcore_command(folder, *arguments):
    """Run ``regcore`` with these arguments in a folder; return its exit status and output."""
    with tempfile.TemporaryFile("w+") as output:
        return _ended(forked("python", [BIN / "regcore", *arguments], folder, environment(), output), output)


def _ended(status, output):
    output.seek(0)
    return SimpleNamespace(returncode=status, output=output.read())
