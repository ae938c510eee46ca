"""Folders of trained models as files."""

import pytest

from regcore.errors import InputError
from regcore.methods import make_method
from regcore.models import trained
from regcore.models.trained import copy_model, load_model

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


@pytest.mark.parametrize("content", [b'{"method": "voxelm', b"\xff\xfe{\x00", b"[1, 2]", b"{}"])
def test_a_damaged_model_is_named_with_the_remedy(tmp_path, content):
    (tmp_path / "model.json").write_bytes(content)
    for read in (load_model, lambda folder: make_method("pretrained", {"model": str(folder)}).ndim):
        with pytest.raises(InputError, match=r"model\.json: .*(copy its folder again|copy it again)"):
            read(tmp_path)
