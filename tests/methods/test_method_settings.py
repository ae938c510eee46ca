"""Settings of methods: what they were when they were dictionaries, so that no finished training is made again."""

import json
import re
from dataclasses import asdict, fields
from pathlib import Path
from typing import get_args

import pytest
from support.paths import ROOT

from regcore.errors import InputError
from regcore.methods import METHODS, make_method, read_settings, settings_type
from regcore.methods.settings import autoreg, flow, hypernetwork, spr, synthmorph, transmorph
from regcore.networks.cells import DOWNSAMPLING, SEPARABLE
from regcore.networks.hypernetwork import ACTIVATIONS
from regcore.networks.transmorph import COMPOSITIONS, NORM, SIZES
from regcore.networks.unet_architecture import ARCHITECTURES
from regcore.networks.weight_volume import RESOLUTIONS
from regcore.settings.fingerprint import fingerprint
from regcore.synthesis.intensities import ImageRanges

#: Settings of every method, preset and study of this repository, and the fingerprints that they had as dictionaries.
CASES = json.loads((Path(__file__).parent / "settings_fingerprints.json").read_text())

#: Names and shapes of the weights of some networks that models are stored of.
NETWORKS = json.loads((Path(__file__).parent / "weights_of_networks.json").read_text())


def test_settings_have_the_fingerprints_of_the_dictionaries_that_they_were():
    """The fingerprint is part of what a checkpoint and a trained model are known by."""
    changed = [
        f"{case['case']}: {case['method']}"
        for case in CASES
        if fingerprint(read_settings(case["method"], case["given"]).as_dict()) != case["fingerprint"]
    ]
    assert not changed
    assert {case["method"] for case in CASES} == set(METHODS)


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network["method"])
def test_networks_have_the_weights_that_stored_models_have(network):
    """Names and shapes, as they were when the hypernetwork was a descendant of what it wraps."""
    method = make_method(network["method"], network["given"])
    method.fit_to((32, 64))
    assert {name: list(w.shape) for name, w in method.build(2).state_dict().items()} == network["weights"]


def test_whole_numbers_stay_whole():
    for value in (1, 1.0):
        found = read_settings("voxelmorph", {"lambda": value, "width": value}).as_dict()
        assert (type(found["lambda"]), type(found["width"])) == (type(value), type(value))


@pytest.mark.parametrize("name", METHODS)
def test_settled_settings_are_settings(name):
    """What a model's file says of its method makes that method again."""
    found = read_settings(name).as_dict()
    again = read_settings(name, json.loads(json.dumps(found))).as_dict()
    assert json.dumps(again) == json.dumps(found)


@pytest.mark.parametrize("name", METHODS)
def test_every_setting_is_explained_and_has_a_default(name):
    for key, rule in settings_type(name).schema_of_keys().items():
        assert rule["description"] and "default" in rule, key


def choices(settings, key):
    return set(settings.schema_of_keys()[key]["enum"])


def test_choices_are_those_that_the_networks_know():
    """They are written out in the settings, which torch is not loaded for."""
    assert set(get_args(flow.UNetName)) == set(ARCHITECTURES)
    network = transmorph.TransMorphNetworkSettings
    for key, known in (("size", SIZES), ("compose", COMPOSITIONS), ("norm", NORM)):
        assert choices(network, key) == set(known), key
    assert choices(autoreg.AutoRegSettings, "separable") == set(SEPARABLE)
    assert choices(autoreg.AutoRegSettings, "downsampling") == set(DOWNSAMPLING)
    assert choices(hypernetwork.HypernetworkSettings, "final") == set(ACTIVATIONS)
    assert choices(spr.SPRSettings, "features") == set(RESOLUTIONS)


def test_defaults_of_the_generator_are_the_generators():
    found = synthmorph.SynthMorphSettings.read({}, "x")
    assert {rule.name: found.value(rule.name) for rule in fields(ImageRanges)} == asdict(ImageRanges())


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("voxelmorph", {"lamda": 1}, "unknown key 'lamda'; did you mean 'lambda'"),
        ("voxelmorph", {"lambda": "1"}, "'1' is not a number or null"),
        ("voxelmorph", {"steps": True}, "True is not a whole number"),
        ("voxelmorph", {"similarity": "mes"}, "'mes' is not possible; did you mean 'mse'"),
        ("voxelmorph", {"gamma": -1}, "gamma"),
        ("voxelmorph", {"preset": "papier"}, "'papier' is not possible; did you mean 'paper'"),
        ("hypermorph", {"weighting": "sum"}, "'sum' is not possible; known are: convex"),
        ("syn", {"iterations": []}, "fewer than 1 item"),
        ("hypermorph", {"prior": {"lambda": [0]}}, "prior.lambda"),
        ("voxelmorph", {"schedule": "plateau"}, "'schedule: plateau' needs 'patience'"),
    ],
)
def test_what_is_wrong_is_named(name, given, words):
    with pytest.raises(InputError) as raised:
        make_method(name, given, "mine")
    assert words in str(raised.value) and str(raised.value).startswith("mine")


def test_no_method_reads_its_settings_by_string():
    """Attributes are what a type checker sees."""
    by_string = re.compile(r"(method|self|chosen|at)\.settings(\[|\.get\()|\bproperties: ClassVar")
    found = [path.name for path in (ROOT / "regcore").rglob("*.py") if by_string.search(path.read_text())]
    assert not found
