"""The linters of ``make lint`` are content; ``lint-imports`` has tests of its own beside this file."""

import subprocess

import pytest
from support.paths import BIN, ROOT
from support.snakemake import snakemake_command


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["snakefmt", "--check", "workflow"], ["mypy"]],
    ids=" ".join,
)
def test_linters_are_content(command):
    done = subprocess.run([str(BIN / command[0]), *command[1:]], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.workflow
def test_the_linter_of_workflows_is_content():
    done = snakemake_command(ROOT, "--lint")
    assert done.returncode == 0, done.output
