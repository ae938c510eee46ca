"""The examples in docstrings do what they say."""

import doctest
import importlib
import inspect

import pytest
from support.paths import ROOT

WITH_EXAMPLES = [path for path in sorted((ROOT / "regcore").rglob("*.py")) if ">>> " in path.read_text()]


class Finder(doctest.DocTestFinder):
    """Finds the examples of functions in a decorator, such as context managers, as well."""

    def _from_module(self, module, object):
        return super()._from_module(module, inspect.unwrap(object))


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=lambda path: str(path.relative_to(ROOT)))
def test_examples_run(path):
    # By its own name: as `package.__init__` a package would be loaded twice, and register its operators anew.
    named = path.parent if path.name == "__init__.py" else path.with_suffix("")
    module = importlib.import_module(".".join(named.relative_to(ROOT).parts))
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    for test in Finder().find(module):
        runner.run(test)
    assert runner.tries > 0 and runner.failures == 0
