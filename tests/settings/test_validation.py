"""Configuration: defaults, sentences for mistakes, fingerprints."""

import pytest

from regcore.errors import InputError
from regcore.settings.fingerprint import fingerprint
from regcore.settings.validation import settings_schema, validated
from regcore.settings.yaml import load_yaml

SCHEMA = settings_schema(
    {
        "lambda": {"description": "weight", "type": "number", "minimum": 0, "default": 0.02},
        "metric": {"description": "which", "enum": ["CC", "mattes"], "default": "CC"},
        "nested": settings_schema({"deep": {"description": "inside", "type": "integer", "default": 3}})
        | {"default": {}},
    }
)


def test_defaults_are_filled_in_at_every_depth_without_touching_the_input():
    given = {"lambda": 1}
    assert validated(given, SCHEMA, "x") == {"lambda": 1, "metric": "CC", "nested": {"deep": 3}}
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
        validated(config, SCHEMA, "methods.x")
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
