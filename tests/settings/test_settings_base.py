"""Settings: defaults, sentences for mistakes, fingerprints, YAML files."""

from typing import Literal

import pytest
from pydantic import Field

from regcore.errors import InputError
from regcore.settings.base import NonNegative, Settings
from regcore.settings.fields import section
from regcore.settings.fingerprint import fingerprint
from regcore.settings.yaml import load_yaml


class Nested(Settings):
    deep: int = Field(3, description="inside")


class Mine(Settings):
    lambda_: NonNegative = Field(0.02, description="weight")
    metric: Literal["CC", "mattes"] = Field("CC", description="which")
    nested: Nested = section(Nested, "more")


def test_defaults_are_filled_in_at_every_depth_without_touching_the_input():
    given = {"lambda": 1}
    assert Mine.read(given, "x").as_dict() == {"lambda": 1, "metric": "CC", "nested": {"deep": 3}}
    assert given == {"lambda": 1}


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"lamda": 1}, ["unknown key 'lamda'", "did you mean 'lambda'"]),
        ({"metric": "cc"}, ["metric", "'cc' is not possible", "CC"]),
        ({"lambda": -1}, ["lambda", "minimum"]),
        ({"lambda": "a"}, ["lambda", "number", "weight"]),
        ({"nested": {"dep": 1}}, ["nested", "unknown key 'dep'", "did you mean 'deep'"]),
    ],
)
def test_a_mistake_is_explained_with_its_place_and_the_remedy(config, words):
    with pytest.raises(InputError) as caught:
        Mine.read(config, "methods.x")
    assert all(word in str(caught.value) for word in ["methods.x", *words])


def test_fingerprints_ignore_the_order_of_keys_and_nothing_else():
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
    assert fingerprint([1, 2]) != fingerprint([2, 1])


def test_unreadable_yaml_names_the_file(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text("a: [1, 2\nb: 3")
    with pytest.raises(InputError, match=r"(?s)bad\.yaml.*line"):
        load_yaml(path)
    with pytest.raises(InputError, match="no such file"):
        load_yaml(tmp_path / "none.yaml")
