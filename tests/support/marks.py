"""Fixtures that mark the tests that use them, which pytest's own marks cannot do."""

from collections.abc import Callable

import pytest


def marks_its_tests(name: str) -> Callable:
    """Give every test that uses a fixture a marker; stands between ``pytest.fixture`` and the function."""

    def marked(function: Callable) -> Callable:
        function.marks_its_tests = name
        return function

    return marked


def mark(item: pytest.Item) -> None:
    """Add the markers of the fixtures that a test uses, also by way of other fixtures."""
    for definitions in item._fixtureinfo.name2fixturedefs.values():
        for definition in definitions:
            if name := getattr(definition.func, "marks_its_tests", None):
                item.add_marker(name)
