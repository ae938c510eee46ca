"""What the documentation says is what the code does."""

import ast
import importlib
import inspect
import re
from collections.abc import Sequence
from pathlib import Path

from support.paths import ROOT

from regcore.methods import METHODS, settings_type
from regcore.study.reference import filled

# Paths of this repository in its texts.  A path that goes up (../) is a link; a placeholder (<name>, …) names no file.
PATH = re.compile(r"(?<![\w/.<-])(?:regcore|workflow|config|tests|docs|benchmarks)/[\w./+-]*\w(?![\w]*[<{*…])")
MODULE = re.compile(r"(?<![\w/.-])regcore(?:\.[A-Za-z_]\w*)+")
ROLE = re.compile(r":(?:mod|func|class|data|meth|attr|exc):`~?([\w.]+)`")
REMEDY = "run: python -m regcore.study.reference"
#: A study of the reader's own.
READERS_OWN = "config/studies/mine.yaml"


def pages() -> list[Path]:
    """The Markdown files of the repository."""
    roots = [ROOT, *(ROOT / name for name in ("config", "benchmarks"))]
    folders = (ROOT / "docs", ROOT / "regcore")
    return [page for root in roots for page in root.glob("*.md")] + [p for f in folders for p in f.rglob("*.md")]


def modules() -> list[Path]:
    return sorted((ROOT / "regcore").rglob("*.py"))


def missing_paths(text: str) -> set[str]:
    """Paths in a text where there is no file, nor files of that name with an ending."""
    named = set(PATH.findall(text)) - {READERS_OWN}
    return {path for path in named if not (ROOT / path).exists() and not list(ROOT.glob(f"{path}.*"))}


def imported(name: str) -> bool:
    """Whether a dotted name leads to a module, or to something in one."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError as error:
            if error.name and ".".join(parts).startswith(error.name):
                continue
            return True  # a package that regcore can do without is not installed
        return has(found, parts[length:])
    return False


def has(found: object, names: Sequence[str]) -> bool:
    """Whether attributes lead from an object to another; a field of a dataclass counts."""
    for name in names:
        if isinstance(found, type) and name in inspect.get_annotations(found):
            return True
        if not hasattr(found, name):
            return False
        found = getattr(found, name)
    return True


def defined(tree: ast.AST) -> set[str]:
    """Names that a module or its classes define or import."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.add(node.attr)
    return names


def lost_references(path: Path) -> set[str]:
    """Names in the roles of a module's docstrings and comments that lead nowhere."""
    text = path.read_text()
    here = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    names = defined(ast.parse(text))
    return {
        name
        for name in ROLE.findall(text)
        if name.split(".")[-1] not in names
        and not any(imported(f"{place}{name}") for place in ("", f"{here}.", f"{here.rpartition('.')[0]}."))
    }


def test_the_configuration_readme_lists_every_key_and_setting():
    readme = ROOT / "config" / "README.md"
    assert readme.read_text() == filled(readme.read_text()), REMEDY


def test_every_setting_of_every_method_has_a_default_and_a_description():
    for name in METHODS:
        for key, rule in settings_type(name).schema_of_keys().items():
            assert "default" in rule and rule["description"], f"{name}.{key}"


def test_links_in_the_documentation_lead_somewhere():
    for page in pages():
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"


def test_paths_and_modules_named_in_the_docs_exist():
    texts = [*pages(), *ROOT.glob("config/**/*.yaml"), *ROOT.glob("benchmarks/*.py"), *modules()]
    assert {f"{text.relative_to(ROOT)}: {path}" for text in texts for path in missing_paths(text.read_text())} == set()
    named = {(text, name) for text in texts for name in MODULE.findall(text.read_text())}
    assert {f"{text.relative_to(ROOT)}: {name}" for text, name in named if not imported(name)} == set()
    assert {f"{path.relative_to(ROOT)}: {name}" for path in modules() for name in lost_references(path)} == set()


def test_a_path_or_module_that_does_not_exist_is_found():
    assert missing_paths("see regcore/field.py and `regcore/images/field.py`, config/studies/<mine>.yaml") == {
        "regcore/field.py"
    }
    assert imported("regcore.images.field.DisplacementField") and not imported("regcore.field.DisplacementField")
    assert imported("regcore.images.field.DisplacementField.grid")
