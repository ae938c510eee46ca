"""Modules that are named in strings, docstrings and pages, where no linter looks, exist."""

import contextlib
import importlib
import re
from pathlib import Path

from support.paths import ROOT


def texts():
    """Path and content of everything that people read or run."""
    for folder in ("regcore", "tests", "benchmarks", "workflow", "docs", "config"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".md", ".smk", ".yaml", ".rst") or path.name == "Snakefile":
                yield path.relative_to(ROOT), path.read_text()
    yield "README.md", (ROOT / "README.md").read_text()


def test_modules_that_a_text_names_exist():
    """Also in code that another process runs, which no linter reads."""
    for path, text in texts():
        if path == Path("tests", "repository", "test_imports.py"):  # its circles are of modules that do not exist
            continue
        for name in re.findall(r"(?:\bfrom|\bimport|-m) (regcore(?:\.\w+)*)", text):
            file = ROOT.joinpath(*name.split("."))
            assert file.with_suffix(".py").is_file() or (file / "__init__.py").is_file(), f"{path}: no module {name}"


def test_cross_references_lead_somewhere():
    for path, text in texts():
        for name in re.findall(r":\w+:`[~!]?(regcore\.[\w.]+)`", text):
            assert resolved(name), f"{path} refers to {name}"


def resolved(name):
    """Whether a dotted name is a module, or what such a module has."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        with contextlib.suppress(ModuleNotFoundError):
            found = importlib.import_module(".".join(parts[:count]))
            for attribute in parts[count:]:
                if attribute not in getattr(found, "__annotations__", {}) and not hasattr(found, attribute):
                    return False
                found = getattr(found, attribute, None)
            return True
    return False
