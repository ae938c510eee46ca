"""No file of the project appears under its final name before it is complete."""

import ast
import re
from collections.abc import Iterator

import pytest
from support.paths import ROOT

#: Files whose writes need not be atomic, and why.
EXEMPT = {
    "benchmarks/operators.py": "writes to /proc",
    "regcore/process/cost.py": "writes to /proc",
    "regcore/methods/classical/demons.py": "writes to the temporary folder of one call",
    "regcore/methods/classical/elastix.py": "writes to the temporary folder of one call",
    "regcore/training/distributed.py": "writes to a temporary folder for its own processes",
}
#: Methods that write to their first argument, or to the path that they belong to.
METHODS = {"write_text", "write_bytes", "savefig", "to_csv", "to_excel", "to_html", "to_json", "to_parquet", "tofile"}
#: Functions that write, by the module they are called on.
FUNCTIONS = {
    "shutil": {"copy", "copy2", "copyfile", "copytree", "move"},
    "np": {"save", "savetxt", "savez", "savez_compressed"},
    "nib": {"save"},
    "torch": {"save"},
    "sitk": {"WriteImage", "WriteTransform"},
}
#: Methods that give text when they are called without a path.
TEXT = {"to_csv", "to_html", "to_json"}


def writes(call: ast.Call) -> bool:
    """Whether a call writes a file anew."""
    function = call.func
    if isinstance(function, ast.Name):
        return function.id == "save_file" or (function.id == "open" and opens_to_write(call.args[1:], call.keywords))
    if not isinstance(function, ast.Attribute):
        return False
    if isinstance(function.value, ast.Name) and function.attr in FUNCTIONS.get(function.value.id, ()):
        return True
    if function.attr == "open":
        return opens_to_write(call.args, call.keywords)
    given = call.args or any(word.arg in ("path", "path_or_buf", "buf") for word in call.keywords)
    return function.attr in METHODS and (function.attr not in TEXT or bool(given))


def opens_to_write(arguments: list[ast.expr], keywords: list[ast.keyword]) -> bool:
    values = [*arguments[:1], *(word.value for word in keywords if word.arg == "mode")]
    return any(isinstance(value, ast.Constant) and re.fullmatch("[wx][bt+]*", str(value.value)) for value in values)


def torn(node: ast.AST) -> Iterator[int]:
    """Lines that write outside ``with atomic_write(…)``."""
    if isinstance(node, ast.With):
        calls = [item.context_expr for item in node.items]
        if any(isinstance(call, ast.Call) and ast.unparse(call.func) == "atomic_write" for call in calls):
            return
    if isinstance(node, ast.Call) and writes(node):
        yield node.lineno
    for child in ast.iter_child_nodes(node):
        yield from torn(child)


def test_every_file_is_written_atomically():
    files = [*ROOT.glob("regcore/**/*.py"), *ROOT.glob("workflow/scripts/*.py"), *ROOT.glob("benchmarks/*.py")]
    found = {str(file.relative_to(ROOT)): list(torn(ast.parse(file.read_text()))) for file in files}
    lines = [f"{name}:{line}" for name, places in found.items() if name not in EXEMPT for line in places]
    assert not lines, "write inside `with atomic_write(path) as temporary:` of regcore.process.files"
    assert {name for name in EXEMPT if not found[name]} == set(), "these need no exemption any more"


@pytest.mark.parametrize(
    ("code", "count"),
    [
        ("path.write_text('x')", 1),
        ("table.to_csv(path, index=False)", 1),
        ("print(table.to_csv(index=False))", 0),
        ("open(path, 'w').write('x')", 1),
        ("path.open(mode='wb')", 1),
        ("archive.open('weights')", 0),
        ("open(path)\nopen(path, 'a')", 0),
        ("shutil.copytree(a, b)", 1),
        ("with atomic_write(path) as new:\n    np.save(new, x)", 0),
        ("with atomic_write(path) as new, new.open('w') as stream:\n    stream.write('x')", 0),
        ("with other(path) as new:\n    np.save(new, x)", 1),
    ],
)
def test_writes_are_recognised(code, count):
    assert len(list(torn(ast.parse(code)))) == count
