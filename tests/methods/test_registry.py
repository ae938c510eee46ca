"""The registry of methods: what it says of a class, and how it finds those of installed packages."""

import importlib.metadata
import subprocess
import sys
import textwrap

import pytest

from regcore import methods
from regcore.errors import InputError
from regcore.methods import FACTS, METHODS, make_method, method_info, method_type, read_settings, settings_type


@pytest.mark.parametrize("name", METHODS)
def test_the_registry_says_what_the_class_says(name):
    info, found = METHODS[name], method_type(name)
    assert {fact: getattr(info, fact) for fact in FACTS} == {fact: getattr(found, fact) for fact in FACTS}
    assert found.settings_type is settings_type(name)


def test_settings_are_read_without_torch():
    code = """
        import sys
        from regcore.methods import FACTS, METHODS, read_settings
        for name in METHODS:
            read_settings(name)
        sys.exit("torch" in sys.modules)
    """
    assert subprocess.run([sys.executable, "-c", textwrap.dedent(code)]).returncode == 0


class Point(importlib.metadata.EntryPoint):
    """An entry point of a package that is not there."""

    dist = property(lambda self: type("Distribution", (), {"name": "their-package"}))


@pytest.fixture
def installed(monkeypatch, tmp_path):
    """Install a module whose methods have the given locations."""

    def install(source, **locations):
        (tmp_path / "their_module.py").write_text(textwrap.dedent(source))
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "their_module", raising=False)
        points = {name: Point(name, location, methods.ENTRY_POINTS) for name, location in locations.items()}
        monkeypatch.setattr(methods, "installed_methods", lambda: points)
        methods._installed.cache_clear()

    yield install
    methods._installed.cache_clear()


THEIRS = """
    from regcore.methods.base import LearnedMethod, Method
    from regcore.methods.settings.base import MethodSettings
    from regcore.methods.settings.training import TrainingSettings

    class Settings(MethodSettings):
        speed: int = 3

    class Theirs(Method):
        settings_type = Settings
        external, dimensions = True, (3,)

        def register(self, fixed, moving):
            return self.settings.speed

    class Without(Method):
        def register(self, fixed, moving):
            return None
"""


def test_a_method_of_an_installed_package_is_found(installed):
    installed(THEIRS, theirs="their_module:Theirs")
    assert make_method("theirs", {"speed": 4}).register(None, None) == 4
    info = method_info("theirs")
    assert info.external and info.dimensions == (3,) and not info.learned
    assert read_settings("theirs").as_dict() == {"speed": 3}
    with pytest.raises(InputError, match="mine: unknown key 'sped'; did you mean 'speed'"):
        make_method("theirs", {"sped": 4}, "mine")


def test_unknown_names_are_compared_with_those_of_packages_too(installed):
    installed(THEIRS, theirs="their_module:Theirs")
    with pytest.raises(InputError, match="unknown method 'thiers'; did you mean 'theirs'"):
        method_info("thiers")
    with pytest.raises(InputError, match="unknown method 'greddy'; did you mean 'greedy'"):
        method_info("greddy")


def test_a_name_of_regcores_stays_its_own(monkeypatch):
    points = [Point(name, "their_module:Theirs", methods.ENTRY_POINTS) for name in ("syn", "theirs")]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: points)
    methods.installed_methods.cache_clear()
    assert list(methods.installed_methods()) == ["theirs"]
    methods.installed_methods.cache_clear()


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("their_module:Absent", "AttributeError"),
        ("no_such_module:Theirs", "ModuleNotFoundError"),
        ("their_module:Without", "must be a class whose 'settings_type'"),
        ("their_module:MethodSettings", "must be a class whose 'settings_type'"),
    ],
)
def test_a_broken_package_is_named_in_one_message(installed, location, words):
    installed(THEIRS, theirs=location)
    with pytest.raises(InputError, match=rf"(?s)^mine: .*'theirs'.*{words}") as raised:
        make_method("theirs", {}, "mine")
    assert "their-package" in str(raised.value) and "\n" not in str(raised.value)
