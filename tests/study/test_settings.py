"""The file of a study as typed settings."""

import copy
import hashlib
import json

import pytest
import yaml
from support.paths import ROOT

from regcore.errors import InputError
from regcore.study.entry import Entry
from regcore.study.settings import StudySettings

#: What the JSON schemas, which the classes replaced, made of each committed study file: part → hash of its JSON.
KNOWN = json.loads((ROOT / "tests" / "study" / "study_files.json").read_text())
TINY = {"study": "x", "cohort": {"table": "cohort.tsv"}, "methods": {"syn": None}}


def hashed(value):
    """Of the JSON text, in which the order of keys counts: Snakemake compares parameters as text."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def test_all_study_files_are_known():
    files = [ROOT / "config" / "config.yaml", *(ROOT / "config" / "studies").glob("*.yaml")]
    assert {path.relative_to(ROOT / "config").as_posix() for path in files} == set(KNOWN)


@pytest.mark.parametrize("file", KNOWN)
def test_a_study_file_means_what_it_always_meant(file):
    given = yaml.safe_load((ROOT / "config" / file).read_text())
    kept = copy.deepcopy(given)
    study = StudySettings.read(given, "configuration").as_dict()
    assert given == kept
    found = {key: hashed(value) for key, value in study.items()} | {"(all)": hashed(study)}
    entries: dict[str, Entry] = {}
    entries |= {name: Entry(name, values, entries) for name, values in study["methods"].items()}
    for name, entry in entries.items():
        if (search := entry.search) is not None:
            when = [search.random_trials, search.pruning, search.startup_trials, search.warmup, search.interval]
            found[f"methods.{name}.tune"] = hashed([search.identity, search.trials, search.workers, *when])
        if (cells := entry.cell_search) is not None:
            found[f"methods.{name}.autosearch"] = hashed([cells.what, cells.others, cells.settings.as_dict()])
    assert found == KNOWN[file]


@pytest.mark.parametrize("file", KNOWN)
def test_a_checked_study_is_the_same_checked_again(file):
    study = StudySettings.read(yaml.safe_load((ROOT / "config" / file).read_text()), "configuration")
    again = StudySettings.read(study.as_dict(), "configuration")
    assert json.dumps(again.as_dict()) == json.dumps(study.as_dict()) and again == study


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cohort": {}}, "configuration: cohort: give exactly one of 'embedded' .* and 'table'"),
        ({"cohort": {"table": "x", "embedded": {}}}, "configuration: cohort: give exactly one of 'embedded'"),
        (
            {"pairs": {"contrasts": ["T1w"]}},
            r"configuration: pairs.contrasts: give two contrasts, such as \[T1w, T1w\]",
        ),
        ({"pairs": {"contrasts": [["a", "b"], ["a", "b"]]}}, "pairs.contrasts: give two contrasts"),
        ({"preproces": {}}, "configuration: unknown key 'preproces'; did you mean 'preprocess'"),
        ({"evaluation": {"point": 3}}, "configuration: evaluation: unknown key 'point'; did you mean 'points'"),
        ({"preprocess": {"affine": "afine"}}, "preprocess.affine: 'afine' is not possible; did you mean 'affine'"),
        ({"registration": {"time_limit": 0}}, r"registration.time_limit: 0 is not greater than 0 \(seconds after"),
        ({"preprocess": {"shape": [15, 20]}}, "preprocess.shape.0: 15 is less than the minimum of 16"),
        ({"seed": 1.5}, r"configuration: seed: 1.5 is not a whole number \(seed of every random"),
        ({"methods": {}}, "configuration: methods: {} has fewer than 1 item"),
        ({"methods": {"a b": None}}, r"configuration: methods: 'a b' does not match '\^\[A-Za-z0-9._-\]\+\$'"),
        ({"methods": {"syn": 3}}, "configuration: methods.syn: 3 is not a mapping of keys to values"),
        ({"study": "a b"}, r"configuration: study: 'a b' does not match '\^\[A-Za-z0-9._-\]\+\$' \(name of the study"),
        ({"cohort": {"embedded": {"contrasts": ["T1w", "T1w"]}}}, "embedded.contrasts: .* has an item twice"),
        ({"cohort": {"embedded": {"datasets": {"a b": {}}}}}, "embedded.datasets: 'a b' does not match"),
        ({"cohort": {"embedded": {"datasets": {"a": {"nois": 1}}}}}, "datasets.a: unknown key 'nois'.*'noise'"),
        ({"experiments": {"spr": {"grid": {"alpha": []}}}}, "experiments.spr.grid: missing key 'lambda_max'"),
        ({"experiments": {"synthmorph": {"sweeps": {"b_w": [1, 2]}}}}, "sweeps: 'b_w' is not possible; did you mean"),
        ({"experiments": {"hypermorph": {"lambda": {"mse": [0, 2]}}}}, "lambda.mse.1: 2 is greater than the maximum"),
        ({"experiments": {"voxelmorph": {"gamma": ["infinit"]}}}, "gamma.0: 'infinit' is not a number or infinity"),
    ],
)
def test_a_mistake_is_explained(changes, message):
    with pytest.raises(InputError, match=message):
        StudySettings.read({**TINY, **changes}, "configuration")


def test_what_a_study_does_not_need_is_left_out():
    study = StudySettings.read({"methods": {"syn": None}, **TINY}, "configuration")
    assert study.cohort.as_dict() == {"table": "cohort.tsv"} and study.cohort.embedded is None
    assert list(study.as_dict())[:3] == ["methods", "study", "cohort"]
    assert study.methods == {"syn": {}}
    embedded = StudySettings.read({**TINY, "cohort": {"embedded": {"datasets": {"a": None}}}}, "x").cohort.embedded
    assert embedded.as_dict()["datasets"] == {"a": None} and "sessions" not in embedded.as_dict()


def test_a_dataset_has_what_it_does_not_change_from_the_cohort():
    given = {"noise": 0.1, "datasets": {"a": {"bias": 1}, "b": None}}
    embedded = StudySettings.read({**TINY, "cohort": {"embedded": given}}, "x").cohort.embedded
    assert (embedded.in_dataset("a").bias, embedded.in_dataset("a").noise) == (1, 0.1)
    assert (embedded.in_dataset("b").bias, embedded.in_dataset("c").bias) == (0.02, 0.02)
