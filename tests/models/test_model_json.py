"""A damaged or foreign ``model.json``, on every way by which a person meets one."""

import re
from types import SimpleNamespace

import pytest
from support.models import write_model_json

from regcore.autoreg.search import read_found
from regcore.errors import InputError
from regcore.methods import make_method
from regcore.models.model_json import KEYS, read_model_json
from regcore.models.released import release, released_models
from regcore.models.trained import load_model
from regcore.study.entry import Entry
from regcore.study.results import Results
from regcore.study.stages import tune

#: Who reads the file of a folder ``models/vm``.
READERS = {
    "registration": load_model,
    "pretrained": lambda folder: make_method("pretrained", {"model": str(folder)}).ndim,
    "release": lambda folder: release(folder, folder / "released"),
    "entry of a study": lambda folder: Entry("vm", {"method": "pretrained", "model": str(folder)}).network,
    "results of a study": lambda folder: Results(SimpleNamespace(folder=folder.parents[1])).training("vm"),
    "search for hyperparameters": lambda folder: tune._finish(None, 0, folder, folder),
    "start of a search for cells": lambda folder: read_found(folder, "methods.ar.autosearch.start"),
}


@pytest.fixture
def folder(tmp_path):
    write_model_json(tmp_path / "models" / "vm")
    return tmp_path / "models" / "vm"


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"method": "voxelm', "missing or damaged"),
        (b"\xff\xfe{\x00", "missing or damaged"),
        (b"[1, 2]", "not the file of a trained model"),
        (b'{"method": "voxelmorph", "settings": {}}', "it has no grid, preprocess, training"),
    ],
    ids=["cut", "bytes", "list", "another program's"],
)
def test_every_reader_names_the_file_and_the_remedy(folder, reader, content, words):
    (folder / "model.json").write_bytes(content)
    with pytest.raises(InputError, match=re.escape(f"{folder / 'model.json'}: ")) as error:
        READERS[reader](folder)
    assert words in str(error.value)
    assert str(error.value).endswith("delete the model's folder and train it again, or copy its folder again")


def test_every_key_is_needed(folder):
    assert set(read_model_json(folder)) == KEYS
    assert all(set(read_model_json(released)) >= KEYS for released in released_models().values())
