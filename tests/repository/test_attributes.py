"""Settings are read as attributes, which a type checker knows, never by a key in quotes."""

import ast

from support.paths import ROOT

#: What settings of studies and methods are called.
NAMES = {"config", "settings", "preprocess", "checked"}


def keys_in_quotes(text: str) -> list[str]:
    """Readings such as ``config["seed"]`` and ``plan.settings.get("seed")``."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
            read, key = node.value, node.slice
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get":
            read, key = node.func.value, node.args[0]
        else:
            continue
        name = read.id if isinstance(read, ast.Name) else read.attr if isinstance(read, ast.Attribute) else None
        if name in NAMES and isinstance(key, ast.Constant) and isinstance(key.value, str):
            found.append(f"{node.lineno}: {ast.unparse(node)}")
    return found


def test_no_setting_is_read_by_a_key_in_quotes():
    modules = sorted((ROOT / "regcore").rglob("*.py"))
    found = [f"{path.relative_to(ROOT)}:{line}" for path in modules for line in keys_in_quotes(path.read_text())]
    assert not found


def test_a_key_in_quotes_is_found():
    assert keys_in_quotes('plan.config["evaluation"]["points"]') == ["1: plan.config['evaluation']"]
    assert keys_in_quotes("a = 1\nself.settings.get('start')") == ["2: self.settings.get('start')"]
    assert not keys_in_quotes("plan.settings.evaluation.points, rows['dice'], settings[name]")
