"""Versions of stages: what an edit redoes, and what it does not."""

import os
import re
import shutil
import subprocess
import sys

import pytest
from support.paths import ROOT

from regcore.methods import METHODS
from regcore.study.entry import Entry
from regcore.study.sources import read
from regcore.study.versions import STAGES, Versions, stage_version

SCRIPTS = ROOT / "workflow" / "scripts"


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Keeps what was read of the sources, of copies too."""
    return tmp_path_factory.mktemp("cache") / "sources.json"


@pytest.fixture(scope="module")
def here(cache):
    """The versions of this repository."""
    return Versions(SCRIPTS, cache)


def test_the_recorded_sources_are_those_that_are_there(here):
    edited = here.edited()
    assert not edited, (
        f"The code of {', '.join(edited)} has been edited. Where it computes the same as before, run "
        "'python -m regcore.study.versions'; where results change, run 'python -m regcore.study.versions --raise' "
        "with the names of those whose results change. Then commit regcore/study/versions.json."
    )


def test_a_release_gives_plain_numbers(here):
    assert here.of("train", "voxelmorph") == 4
    assert here.of("register", "syn") == 6
    assert all(isinstance(here.of(stage), int) for stage in STAGES)


CODE = """
import numpy as np


def mean(values, weight=1.0):
    return weight * np.mean(values)
"""

SAME = {
    "comment": CODE.replace("    return", "    # the mean\n    return"),
    "docstring": CODE.replace("    return", '    """The mean."""\n    return'),
    "format": CODE.replace("(values, weight=1.0)", "(\n    values,\n    weight=1.0,\n)"),
    "annotation": CODE.replace("values, weight=1.0)", "values: list, weight: float = 1.0) -> float"),
    "import for annotations": "from typing import Any\n" + CODE.replace("values, weight", "values: Any, weight"),
    "import for type checkers": "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    from torch import Tensor\n"
    + CODE,
    "annotated variable": CODE.replace("    return", "    found: float\n    return"),
}

OTHER = {
    "number": CODE.replace("1.0", "2.0"),
    "type of a number": CODE.replace("1.0", "1"),
    "function": CODE.replace("mean(values)", "median(values)"),
    "import": CODE.replace("import numpy as np", "import torch as np"),
    "statement": CODE.replace("    return", "    values = values[1:]\n    return"),
    "text": CODE.replace("np.mean(values)", "np.mean(values['a'])"),
}


@pytest.mark.parametrize("kind", SAME)
def test_what_computes_the_same_has_the_same_digest(kind):
    assert SAME[kind] != CODE
    assert read(SAME[kind]).digest == read(CODE).digest


@pytest.mark.parametrize("kind", OTHER)
def test_what_computes_something_else_has_another_digest(kind):
    assert OTHER[kind] != CODE
    assert read(OTHER[kind]).digest != read(CODE).digest


def test_a_field_of_settings_counts_and_its_type_does_not():
    plain, typed, other = (
        "class A:\n    window: int = 9\n",
        "class A:\n    window = 9\n",
        "class A:\n    window: int = 7\n",
    )
    assert read(plain).digest == read(typed).digest != read(other).digest


def test_imports_are_found_wherever_they_stand():
    text = "import a.b\nfrom .c import d\nfrom t import T\n\ndef f(x: T):\n    from ..e import g\n    return g\n"
    assert read(text, "top.room.module").imports == (("a.b", ""), ("top.e", "g"), ("top.room.c", "d"))


# The digests of a text under Python 3.11; other versions have to agree, or an update of Python redoes every study.
def test_a_digest_does_not_depend_on_the_version_of_python():
    text = (
        'def f(x, *rest, y=(1, "a"), **more):\n    return f"{x!r:>{y}} and {rest} {{}}" "more" + u"" + b"".decode()\n'
    )
    assert read(text).digest == "f508acbecf0d4fdc"


@pytest.fixture
def copied(tmp_path, cache):
    """``edit(module, old, new)`` in a copy of the package; gives the versions of the edited copy."""
    package = tmp_path / "regcore"
    ignored = shutil.ignore_patterns("__pycache__", "*.safetensors")
    shutil.copytree(ROOT / "regcore", package, ignore=ignored)
    scripts = shutil.copytree(SCRIPTS, tmp_path / "scripts")

    def edit(path, old="", new=""):
        file = tmp_path / path
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new, 1) if old else text + new)
        return Versions(scripts, cache, package, package / "study" / "versions.json")

    return edit


@pytest.fixture
def changed(here):
    """``changed(versions)``: the (stage, *methods) whose version is another than this repository's."""
    asked = [(stage,) for stage in STAGES]
    asked += [(stage, method) for stage in ("train", "register") for method in METHODS]
    return lambda versions: {one for one in asked if versions.of(*one) != here.of(*one)}


def test_an_edited_method_changes_its_own_jobs_alone(copied, changed):
    edited = changed(copied("regcore/methods/synthmorph.py", new="\nEDITED = 1\n"))
    assert edited == {("train", "synthmorph"), ("register", "synthmorph")}


def test_comments_and_time_stamps_change_nothing(copied, changed):
    os.utime(ROOT / "regcore" / "methods" / "flow.py")
    assert not changed(copied("regcore/methods/synthmorph.py", new="\n# a comment\n"))


def test_an_edited_trainer_changes_trainings_but_no_registration(copied, changed):
    edited = {stage for stage, *_ in changed(copied("regcore/training/trainer.py", new="\nEDITED = 1\n"))}
    assert {"train", "trial"} <= edited
    assert not {"synthesise", "prepare", "register", "evaluate", "report"} & edited


@pytest.mark.parametrize(
    ("file", "text"),
    [("page.py", "\nEDITED = 1\n"), ("page.html.j2", "<p>edited</p>\n")],
    ids=["module", "template"],
)
def test_an_edited_page_is_written_again_and_nothing_else(copied, changed, file, text):
    assert changed(copied(f"regcore/reporting/{file}", new=text)) == {("report",)}


def test_every_file_of_the_package_that_is_no_module_is_known():
    """A new one is an input of jobs, or has to count in the version of a stage."""
    found = {path for path in (ROOT / "regcore").rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    names = {str(path.relative_to(ROOT / "regcore")) for path in found if "__pycache__" not in path.parts}
    counted = {file for stage in STAGES.values() for file in stage.data}
    rest = {name for name in names - counted if not name.startswith("models/released/")}
    assert rest == {"py.typed", "study/versions.json"}


def test_an_edited_script_changes_its_stage(copied, changed):
    assert {stage for stage, *_ in changed(copied("scripts/evaluate.py", new="\nprint(1)\n"))} == {"evaluate"}


def test_an_edit_can_be_recorded_as_one_that_changes_results(copied):
    versions = copied("regcore/methods/synthmorph.py", new="\nEDITED = 1\n")
    assert versions.edited() == ["synthmorph"]
    versions.write_record(("synthmorph", "evaluate"))
    after = Versions(versions.scripts, versions.cache, versions.package, versions.record)
    assert after.edited() == []
    assert after.of("train", "synthmorph") == "4.synthmorph-2" and after.of("train", "spr") == 4
    assert after.of("evaluate") == stage_version("evaluate") + 1


def test_a_method_of_another_package_counts_with_its_sources(tmp_path, monkeypatch, cache):
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError('a version is found without importing the method')\n")
    (folder / "method.py").write_text("from theirs.step import STEP\n")
    (folder / "step.py").write_text("STEP = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(METHODS, "theirs", type(METHODS["spr"])("theirs.method:Method"))
    first = Versions(cache=cache).of("register", "theirs")
    assert re.fullmatch(r"6\+[0-9a-f]{16}", first)
    assert Versions(cache=cache).of("register", "theirs") == first
    (folder / "step.py").write_text("STEP = 2\n")
    assert Versions(cache=cache).of("register", "theirs") != first


def test_an_entry_runs_the_method_of_the_network_that_it_takes_over():
    values = {"vxm": {"method": "voxelmorph"}, "vxm-inst": {"method": "refine", "start": "vxm"}}
    values["released"] = {"method": "pretrained", "model": "synthmorph-2d"}
    values["on"] = {"method": "refine", "start": "synthmorph-2d"}
    entries = {}
    for name in values:
        entries[name] = Entry(name, values[name], entries)
    assert entries["vxm"].methods_run == {"voxelmorph"}
    assert entries["vxm-inst"].methods_run == {"voxelmorph", "refine"}
    assert entries["released"].methods_run == {"pretrained", "synthmorph"}
    assert entries["on"].methods_run == {"refine", "synthmorph"}


def test_every_script_of_the_workflow_counts_in_the_stage_of_its_rule():
    found = {}
    for path in (ROOT / "workflow" / "rules").glob("*.smk"):
        for text in re.split(r"^rule ", path.read_text(), flags=re.MULTILINE)[1:]:
            script, stage = re.search(r"scripts/(\w+)\.py", text), re.search(r'WORKFLOW\.version\("(\w+)"', text)
            if script:
                assert stage, f"a rule with {script[1]}.py has no version of its stage"
                found.setdefault(stage[1], set()).add(script[1])
    assert found == {name: set(stage.scripts) for name, stage in STAGES.items()}
    assert {path.stem for path in SCRIPTS.glob("*.py")} == set().union(*found.values())


def test_what_a_script_calls_counts_in_its_stage(here):
    """But for what runs a job and writes its output, and for reading the file that a search has left."""
    left_out = ("pathlib", "regcore.study.job", "regcore.process", "regcore.study.stages.architecture")
    for name, stage in STAGES.items():
        counted = here.modules_of(name)
        for script in stage.scripts:
            imported = {origin for origin, _ in read((SCRIPTS / f"{script}.py").read_text()).imports}
            missing = [module for module in imported if module not in counted and not module.startswith(left_out)]
            assert not missing, f"{script}.py of {name} calls {missing}"


@pytest.mark.slow
def test_versions_need_no_torch_and_keep_what_they_read(tmp_path):
    code = (
        "import sys\nfrom pathlib import Path\nfrom regcore.study.versions import Versions\n"
        "print(Versions(cache=Path(sys.argv[1])).of('train', 'spr'), 'torch' in sys.modules)"
    )
    cache = tmp_path / "sources.json"
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", code, str(cache)], capture_output=True, text=True, cwd=ROOT, check=True
        )
        assert done.stdout.split() == ["4", "False"]
        assert cache.is_file()
    cache.write_text("damaged")
    assert Versions(cache=cache).of("train", "spr") == 4
