"""Fingerprints of source code, which change only if the code may compute something else.

A fingerprint covers some modules and everything that they import from their packages, also inside functions.  It is
taken from the syntax tree, so comments, docstrings, formatting and type annotations do not count, nor do imports
that only annotations need.  Nothing is imported for it.  Every supported Python gives the same fingerprint.
"""

import ast
import contextlib
import hashlib
import importlib.util
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from regcore.process.files import atomic_write

#: Parts of a syntax tree that do not change what the code computes; the first three hold annotations.
SKIPPED = ("annotation", "returns", "type_params", "type_comment", "type_ignores", "ctx", "kind", "simple")
ANNOTATIONS = SKIPPED[:3]

#: Raised when :func:`read` gives another result for the same source.
FORMAT = 1


@dataclass(frozen=True)
class Source:
    """What is known about a module's source.

    Parameters
    ----------
    digest : str
        Hash of the code.
    imports : tuple of (str, str)
        The imports as (module, name); the name is empty for ``import module``.

    Examples
    --------
    >>> from regcore.study.sources import read
    >>> read("import numpy; from torch import nn").imports
    (('numpy', ''), ('torch', 'nn'))
    """

    digest: str
    imports: tuple[tuple[str, str], ...]


def read(text: str, module: str = "", is_package: bool = False) -> Source:
    """Analyse a source.

    Parameters
    ----------
    text : str
        Python.
    module : str
        Its dotted name, to resolve relative imports.
    is_package : bool
        Whether it is the ``__init__.py`` of a package.

    Returns
    -------
    Source
        Only its code counts, not comments, docstrings, formatting and type annotations.

    Raises
    ------
    SyntaxError
        The text is not Python.

    Examples
    --------
    >>> from regcore.study.sources import read
    >>> read("x = 1  # one").digest == read("x: int = 1").digest, read("x = 1").digest == read("x = 2").digest
    (True, False)
    """
    reader = _Reader(module, is_package)
    body = reader.form(ast.parse(text).body)
    unneeded = {"TYPE_CHECKING", *(reader.annotated - reader.used)}
    kept = sorted(found for found in reader.imports if found[2] not in unneeded)
    imports = tuple(sorted({(origin, name) for origin, name, _ in kept}))
    return Source(hash_of([body, *map(":".join, kept)]), imports)


def hash_of(parts: Iterable[str]) -> str:
    """A short hash of strings.

    Parameters
    ----------
    parts : iterable of str
        Their order counts.

    Returns
    -------
    str
        16 hexadecimal digits.

    Examples
    --------
    >>> from regcore.study.sources import hash_of
    >>> len(hash_of(["a", "b"])), hash_of(["a", "b"]) == hash_of(["b", "a"])
    (16, False)
    """
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


class _Reader:
    """Turns a syntax tree into a canonical text and collects names and imports."""

    def __init__(self, module: str, is_package: bool):
        self.package = module.split(".") if is_package else module.split(".")[:-1]
        self.imports: set[tuple[str, str, str]] = set()  # module, name, local name
        self.used: set[str] = set()
        self.annotated: set[str] = set()

    def form(self, value: Any, parent: ast.AST | None = None) -> str:
        if isinstance(value, list):
            return "[" + ",".join(filter(None, (self.form(part, parent) for part in value))) + "]"
        if isinstance(value, ast.Constant):
            # Some versions of Python leave empty strings between the values of an f-string.
            empty = isinstance(parent, ast.JoinedStr) and value.value == ""
            return "" if empty else f"{type(value.value).__name__}:{value.value!r}"
        if isinstance(value, ast.stmt) and self._says_nothing(value, parent):
            return ""
        if not isinstance(value, ast.AST):
            return repr(value)
        if isinstance(value, ast.Name):
            self.used.add(value.id)
        return self._node(value)

    def _node(self, node: ast.AST) -> str:
        parts = []
        for name, part in ast.iter_fields(node):
            if name in ANNOTATIONS:
                self._note_annotations(part)
            elif name not in SKIPPED and part is not None and part != []:
                text = self.form(part, node)
                parts.append(f"{name}={text}")
        if isinstance(node, ast.AnnAssign):
            return f"Assign(targets=[{self.form(node.target)}],{parts[-1]})"
        return f"{type(node).__name__}({','.join(parts)})"

    def _says_nothing(self, node: ast.stmt, parent: ast.AST | None) -> bool:
        """Whether a statement does not count. Imports are collected separately."""
        if isinstance(node, ast.Import):
            self.imports |= {(alias.name, "", alias.asname or alias.name.split(".")[0]) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            origin = self._origin(node)
            self.imports |= {(origin, alias.name, alias.asname or alias.name) for alias in node.names}
        elif isinstance(node, ast.AnnAssign) and isinstance(parent, ast.ClassDef):
            # A field of a dataclass or of settings: its annotation can change what the class does.
            self.used |= _names(node.annotation)
        elif isinstance(node, ast.AnnAssign) and node.value is None:
            self._note_annotations(node.annotation)
            return True
        is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        return is_text or isinstance(node, ast.Import | ast.ImportFrom | ast.Pass) or _is_type_checking(node)

    def _note_annotations(self, part: Any) -> None:
        for node in part if isinstance(part, list) else [part]:
            if isinstance(node, ast.AST):
                self.annotated |= _names(node)

    def _origin(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        kept = self.package[: len(self.package) - node.level + 1]
        return ".".join([*kept, *([node.module] if node.module else [])])


def _names(node: ast.AST) -> set[str]:
    return {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}


def _is_type_checking(node: ast.stmt) -> bool:
    test = node.test if isinstance(node, ast.If) else None
    return "TYPE_CHECKING" in (getattr(test, "id", None), getattr(test, "attr", None))


@dataclass(frozen=True, eq=False)
class Sources:
    """The modules of some packages.

    Parameters
    ----------
    packages : mapping of str → Path
        Top-level name → its folder, or its file.
    cache : Path, optional
        JSON file with the result for each source, so that a source is read once.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from regcore.study.sources import Sources
    >>> with tempfile.TemporaryDirectory() as name:
    ...     folder = Path(name)
    ...     for file, text in (("__init__", ""), ("a", "from house import b"), ("b", "x = 1"), ("c", "x = 2")):
    ...         _ = folder.joinpath(f"{file}.py").write_text(text)
    ...     list(Sources({"house": folder}).closure(["house.a"]))
    ['house.a', 'house.b']
    """

    packages: Mapping[str, Path]
    cache: Path | None = None
    _read: dict[str, Source | None] = field(default_factory=dict, init=False)
    _kept: dict[str, list] = field(default_factory=dict, init=False)
    _new: set[str] = field(default_factory=set, init=False)

    def __post_init__(self):
        if self.cache is not None:
            with contextlib.suppress(OSError, ValueError):
                self._kept.update(json.loads(self.cache.read_text()))

    def source(self, name: str) -> Source | None:
        """The source of a module; None if the packages have no such module."""
        if name not in self._read:
            path = self._path(name)
            self._read[name] = None if path is None else self._source(path, name)
        return self._read[name]

    def _source(self, path: Path, name: str) -> Source:
        content = path.read_bytes()
        key = f"{FORMAT}:{name}:{hashlib.sha256(content).hexdigest()[:16]}"
        if key not in self._kept:
            source = read(content.decode(), name, path.name == "__init__.py")
            self._kept[key] = [source.digest, source.imports]
            self._new.add(key)
        digest, imports = self._kept[key]
        return Source(digest, tuple((origin, attribute) for origin, attribute in imports))

    def _path(self, name: str) -> Path | None:
        top, *rest = name.split(".")
        start = self.packages.get(top)
        if start is None or start.is_file():
            return None if rest else start
        place = start.joinpath(*rest)
        tried = [place / "__init__.py", *([place.with_name(f"{rest[-1]}.py")] if rest else [])]
        return next((path for path in tried if path.is_file()), None)

    def closure(self, roots: Iterable[str], without: Collection[str] = ()) -> dict[str, Source]:
        """Name → source, of ``roots`` and everything that they import.

        Parameters
        ----------
        without : collection of str
            Modules to leave out, and packages with all their modules, together with what only they import. ``package.``
            stands only for the package's ``__init__``.
        """
        found: dict[str, Source] = {}
        waiting = list(roots)
        while waiting:
            name = waiting.pop()
            source = None if name in found or _is_among(name, without) else self.source(name)
            if source is not None:
                found[name] = source
                waiting += self._followed(source)
        return dict(sorted(found.items()))

    def _followed(self, source: Source) -> Iterator[str]:
        for origin, attribute in source.imports:
            submodule = f"{origin}.{attribute}"
            yield submodule if attribute and self.source(submodule) else origin

    def keep(self) -> None:
        """Write the cache if a source was read."""
        if self.cache is not None and self._new:
            with contextlib.suppress(OSError), atomic_write(self.cache) as path:
                path.write_text(json.dumps(self._kept))
            self._new.clear()


def _is_among(name: str, names: Collection[str]) -> bool:
    return any(name == other or f"{name}." == other or name.startswith(f"{other}.") for other in names)


def fingerprint(sources: Mapping[str, Source]) -> str:
    """Hash of named sources.

    Parameters
    ----------
    sources : mapping of str → Source
        As from :meth:`Sources.closure`. Names count as well.

    Returns
    -------
    str
        16 hexadecimal digits.

    Examples
    --------
    >>> from regcore.study.sources import fingerprint, read
    >>> fingerprint({"a": read("x = 1")}) == fingerprint({"a": read("x  =  1")})
    True
    >>> fingerprint({"a": read("x = 1")}) == fingerprint({"b": read("x = 1")})
    False
    """
    return hash_of(f"{name}={source.digest}" for name, source in sources.items())


def folder_of(package: str) -> Path | None:
    """The folder or file of an installed package, without importing it; None if there is none.

    Parameters
    ----------
    package : str
        Its top-level name.

    Returns
    -------
    Path or None
        None also for a package without a place, such as one built into Python.

    Examples
    --------
    >>> from regcore.study.sources import folder_of
    >>> folder_of("regcore").name, folder_of("no_such_package")
    ('regcore', None)
    """
    spec = importlib.util.find_spec(package)
    if spec is None:
        return None
    places = [*(spec.submodule_search_locations or []), spec.origin]
    return None if places[0] is None else Path(places[0])
