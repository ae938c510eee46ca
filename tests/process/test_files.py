"""Files are written whole or not at all, and what a kill leaves is found again."""

import os

import pytest

from regcore.process.files import atomic_copy, atomic_write, discard_torn


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_when_it_is_complete(tmp_path):
    with atomic_write(tmp_path / "new" / "table.tsv.gz") as path:
        path.write_text("half")
        assert path.name.endswith(".tsv.gz") and not (tmp_path / "new" / "table.tsv.gz").exists()
        path.write_text("whole")
    assert names(tmp_path / "new") == ["table.tsv.gz"] and (tmp_path / "new" / "table.tsv.gz").read_text() == "whole"


def test_what_fails_leaves_the_file_that_was_there(tmp_path):
    (tmp_path / "table.csv").write_text("before")
    with pytest.raises(ZeroDivisionError), atomic_write(tmp_path / "table.csv") as path:
        path.write_text("half")
        raise ZeroDivisionError
    assert names(tmp_path) == ["table.csv"] and (tmp_path / "table.csv").read_text() == "before"


def test_a_copy_replaces_in_one_go(tmp_path, monkeypatch):
    for name in ("one", "two"):
        (tmp_path / name).write_text(name)
    atomic_copy(tmp_path / "one", tmp_path / "two")
    assert (tmp_path / "two").read_text() == "one"
    with pytest.raises(FileNotFoundError):
        atomic_copy(tmp_path / "nothing", tmp_path / "two")
    assert names(tmp_path) == ["one", "two"] and (tmp_path / "two").read_text() == "one"

    def fails(source, target):
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(OSError, match="no space"):
        atomic_copy(tmp_path / "one", tmp_path / "three")
    assert names(tmp_path) == ["one", "two"]


def test_torn_files_alone_are_discarded(tmp_path):
    kept = ["checkpoint.safetensors", ".hidden", ".3d.nii", "12.history.csv"]
    for name in [*kept, ".4711.checkpoint.safetensors", ".12.history.csv"]:
        (tmp_path / name).write_text("x")
    (tmp_path / ".5.folder").mkdir()
    discard_torn(tmp_path)
    assert names(tmp_path) == sorted([*kept, ".5.folder"])
