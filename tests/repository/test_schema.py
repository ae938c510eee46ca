"""The schema from which editors complete and check study files."""

import json

import jsonschema
import pytest
import yaml
from support.paths import ROOT

from regcore.study.reference import SCHEMA, schema_text

STUDIES = [ROOT / "config" / "config.yaml", *sorted((ROOT / "config" / "studies").glob("*.yaml"))]
TINY = {"study": "x", "cohort": {"table": "cohort.tsv"}}


@pytest.fixture(scope="module")
def validator():
    schema = json.loads((ROOT / SCHEMA).read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    return jsonschema.Draft7Validator(schema)


def test_the_schema_is_up_to_date():
    assert (ROOT / SCHEMA).read_text() == schema_text(), "run: python -m regcore.study.reference"


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_study_file_fits_the_schema_that_its_first_line_names(path, validator):
    text = path.read_text()
    named = text.partition("\n")[0].removeprefix("# yaml-language-server: $schema=")
    assert (path.parent / named).resolve() == ROOT / SCHEMA
    assert not [error.message for error in validator.iter_errors(yaml.safe_load(text))]


@pytest.mark.parametrize(
    "entries",
    [
        {"voxelmorph": {"lamda": 1}},
        {"mine": {"method": "voxelmorph", "lamda": 1}},
        {"voxelmorph": {"method": "instance", "learning_rate": 1, "tune": {}}},
        {"voxelmorph": {"lambda": -1}},
        {"voxelmorph": {"tune": {"ranges": {"lambda": [0, 1, 2]}}}},
        {"voxelmorph": {"tune": {"ranges": {"lambda": [0, 1]}, "trails": 3}}},
        {"autoreg": {"autosearch": {"epoch": 0}}},
        {"a name": {"method": "voxelmorph"}},
    ],
)
def test_a_mistake_in_an_entry_is_seen_in_the_editor(entries, validator):
    assert list(validator.iter_errors({**TINY, "methods": entries}))


@pytest.mark.parametrize(
    "entries",
    [
        {"voxelmorph": None, "mine": {"method": "voxelmorph", "lambda": 1, "tune": None}},
        {"voxelmorph": {"method": "syn"}},
        {"of-a-package": {"strength": 1}},  # methods of installed packages are not known here
        {"mine": {"method": "of-a-package", "strength": 1}},
        {"spr": {"tune": {"ranges": {"alpha": {"low": 0.1, "high": 1, "log": True}, "flips": {"choices": [True]}}}}},
        {"autoreg": {"autosearch": {"what": ["objective"], "start": None}}},
    ],
)
def test_what_is_right_is_not_marked_in_the_editor(entries, validator):
    assert not [error.message for error in validator.iter_errors({**TINY, "methods": entries})]


@pytest.mark.parametrize(
    "changes",
    [
        {"preproces": {}},
        {"evaluation": {"point": 3}},
        {"experiments": {"spr": {"grid": {"alpha": [1]}}}},
        {"pairs": {"contrasts": ["T1w"]}},
        {"seed": -1},
    ],
)
def test_a_mistake_in_a_section_is_seen_in_the_editor(changes, validator):
    assert list(validator.iter_errors({**TINY, "methods": {"syn": None}, **changes}))
