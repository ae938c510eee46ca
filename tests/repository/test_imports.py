"""The house: rooms import downwards only, and no files import each other.

``lint-imports`` reads the order of the rooms from ``pyproject.toml``.  A module that is named in a string and loaded
when somebody asks for it, as the registry of methods does, is no import.
"""

import os
import shutil
import subprocess
import sys

import pytest
from support.paths import BIN, ROOT, TESTS


def run(folder, *command):
    """The output of a program that looks at the package in ``folder``, and whether it was content."""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run([str(w) for w in command], cwd=folder, env=environment, capture_output=True, text=True)
    return done.returncode == 0, done.stdout + done.stderr


def contracts(folder):
    return run(folder, BIN / "lint-imports", "--no-cache", "--no-logo")


def circles(folder):
    fine, output = run(folder, sys.executable, TESTS / "support" / "circles.py")
    assert fine, output
    return output.splitlines()


def test_rooms_import_downwards_only():
    kept, output = contracts(ROOT)
    assert kept, output


def test_no_files_import_each_other():
    assert circles(ROOT) == []


@pytest.fixture
def copied(tmp_path):
    """A copy of the package that a test may spoil."""
    shutil.copytree(ROOT / "regcore", tmp_path / "regcore", ignore=shutil.ignore_patterns("__pycache__", "released"))
    (tmp_path / "regcore" / "models" / "released").mkdir()
    shutil.copy(ROOT / "regcore" / "models" / "released" / "__init__.py", tmp_path / "regcore" / "models" / "released")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def add(folder, file, lines):
    path = folder / "regcore" / file
    path.parent.mkdir(exist_ok=True)
    before = path.read_text() if path.exists() else ""
    path.write_text(f"{before}\n\n{lines}\n")


UPWARDS = "import regcore.training.trainer"
INSIDE = "def later():\n    from regcore.training import trainer\n    return trainer"


@pytest.mark.parametrize("lines", [UPWARDS, INSIDE], ids=["at the top", "in a function"])
def test_an_arrow_upwards_breaks_the_contract(copied, lines):
    add(copied, "images/volume.py", lines)
    kept, output = contracts(copied)
    assert not kept
    assert "regcore.images is not allowed to import regcore.training" in output


def test_siblings_without_an_order_may_not_import_each_other(copied):
    add(copied, "losses/priors.py", "import regcore.spatial.warp")
    kept, output = contracts(copied)
    assert not kept
    assert "regcore.losses is not allowed to import regcore.spatial" in output


def test_a_new_room_needs_a_place_in_the_order(copied):
    add(copied, "helpers/__init__.py", "")
    kept, output = contracts(copied)
    assert not kept and "helpers" in output


def test_a_circle_inside_a_room_breaks_the_contract(copied):
    add(copied, "images/first.py", "def later():\n    import regcore.images.second")
    add(copied, "images/second.py", "import regcore.images.first")
    kept, output = contracts(copied)
    assert not kept and "No cycles are allowed in regcore.images" in output
    assert "regcore.images.first -> regcore.images.second -> regcore.images.first" in circles(copied)


def test_a_circle_of_a_room_and_its_own_files_is_found(copied):
    """Of this ``lint-imports`` says nothing, because the two are no siblings."""
    add(copied, "images/__init__.py", "import regcore.images.first")
    add(copied, "images/first.py", "import regcore.images")
    assert "regcore.images -> regcore.images.first -> regcore.images" in circles(copied)
