"""Declarations of settings: order and absence of keys, lists without repetition, values of several forms."""

import json
import pickle
from typing import Annotated, Literal

import pytest
from pydantic import Field

from regcore.errors import InputError
from regcore.settings.base import Count, Number, Section, Settings
from regcore.settings.fields import Distinct, Told, left_out, section
from regcore.settings.schema import plain_schema


class Part(Section):
    a: Number = 1
    lambda_: Number = 2
    sometimes: Count | None = left_out("not always there")


class Whole(Section):
    part: Part = section(Part, "a part")
    names: dict[Annotated[str, Field(pattern="^[a-z]+$")], Count] = Field({}, description="names")
    kinds: dict[Literal["one", "two"], Count] = Field({}, description="kinds")
    some: Annotated[list[Number], Distinct()] = Field([1, 2.0], description="some numbers")
    size: Annotated[int | list[int], Told("give one size, or a list")] = 3


def test_keys_keep_the_order_in_which_they_were_given():
    given = {"some": [1.0, 2], "part": {"lambda": 3, "a": 4}}
    found = Whole.read(given, "x")
    assert list(found.as_dict()) == ["some", "part", "names", "kinds", "size"]
    assert json.dumps(found.as_dict()["part"]) == '{"lambda": 3, "a": 4}'
    assert json.dumps(found.part.with_values({"a": 5}).as_dict()) == '{"lambda": 3, "a": 5}'
    assert list(pickle.loads(pickle.dumps(found)).as_dict()) == list(found.as_dict())
    assert list(Whole.read({}, "x").as_dict()["part"]) == ["a", "lambda"]


def test_the_order_of_keys_makes_no_other_settings():
    assert Part.read({"lambda": 1, "a": 2}, "x") == Part.read({"a": 2, "lambda": 1}, "x")


def test_a_key_without_a_value_is_left_out():
    assert "sometimes" not in Part.read({}, "x").as_dict()
    assert Part.read({"sometimes": 2}, "x").as_dict()["sometimes"] == 2
    assert "default" not in plain_schema(Part)["properties"]["sometimes"]


def test_defaults_are_not_shared():
    first = Whole.read({}, "x")
    first.some.append(3)
    first.part.a = 7
    assert Whole.read({}, "x").some == [1, 2.0] and Whole.read({}, "x").part.a == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"names": {"A": 1}}, r"x: names: 'A' does not match '\^\[a-z\]\+\$'"),
        ({"names": {"a": 0}}, "x: names.a: 0 is less than the minimum of 1"),
        ({"names": {1: 1}}, "x: names: 1 is not a text"),
        ({"kinds": {"on": 1}}, "x: kinds: 'on' is not possible; did you mean 'one'"),
        ({"some": [1, 1.0]}, r"x: some: \[1, 1.0\] has an item twice"),
        ({"size": [1, "a"]}, "^x: size: give one size, or a list$"),
        ({"size": None}, "^x: size: give one size, or a list$"),
        ({"part": {"sometime": 1}}, "x: part: unknown key 'sometime'; did you mean 'sometimes'"),
        (3, "x: 3 is not a mapping"),
    ],
)
def test_a_mistake_names_its_place(given, message):
    with pytest.raises(InputError, match=message):
        Whole.read(given, "x")


def test_schemas_say_what_is_checked():
    properties = plain_schema(Whole)["properties"]
    assert properties["names"]["propertyNames"] == {"pattern": "^[a-z]+$"}
    assert properties["names"]["additionalProperties"] == {"type": "integer", "minimum": 1}
    assert properties["kinds"]["propertyNames"] == {"enum": ["one", "two"]}
    assert properties["some"]["uniqueItems"] is True


def test_a_dictionary_of_settings_is_a_copy():
    class Free(Settings):
        values: dict[str, list[int]] = Field({}, description="anything")

    found = Free.read({"values": {"a": [1]}}, "x")
    found.as_dict()["values"]["a"].append(2)
    assert found.values == {"a": [1]}
