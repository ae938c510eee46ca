"""Folders of trained models as files."""

import pytest

from regcore.models import trained
from regcore.models.trained import copy_model

NAMES = ("history.csv", "model.json", "reference.nii.gz", "weights.safetensors")


def test_a_copied_model_has_its_model_json_last(tmp_path, monkeypatch):
    """So that a folder with ``model.json`` is complete, whenever the copying was killed."""
    model, copy = tmp_path / "model", tmp_path / "copy"
    model.mkdir()
    for name in NAMES:
        (model / name).write_text(name)
    copy_model(model, copy)
    assert {path.name: path.read_text() for path in copy.iterdir()} == {name: name for name in NAMES}
    copied = []

    def killed(source, path):
        if len(copied) == 3:
            raise KeyboardInterrupt
        copied.append(path.name)

    monkeypatch.setattr(trained, "atomic_copy", killed)
    with pytest.raises(KeyboardInterrupt):
        copy_model(model, tmp_path / "half")
    assert "model.json" not in copied
