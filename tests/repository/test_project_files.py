"""Files for people and services around the code: they can be read, and what they name exists."""

import re
import tomllib

import yaml
from support.paths import BIN, ROOT

import regcore


def make_targets():
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))


def load(name):
    return yaml.safe_load((ROOT / name).read_text())


def test_the_citation_has_what_the_format_requires():
    citation = load("CITATION.cff")
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert str(citation["version"]) == regcore.__version__
    for reference in citation["references"]:
        assert {"type", "title", "authors", "year"} <= set(reference)
        assert all({"given-names", "family-names"} == set(author) for author in reference["authors"])
        identifiers = [reference.get("doi", ""), *(one["value"] for one in reference.get("identifiers", []))]
        assert any(re.match(r"10\.\d{4}/|arXiv:\d{4}\.\d{5}$", one) for one in identifiers), reference["title"]
    assert len(citation["references"]) == 5


def test_the_version_is_written_once_more_and_agrees():
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == regcore.__version__


def test_commands_of_the_guide_for_contributors_exist():
    guide = (ROOT / "CONTRIBUTING.md").read_text()
    named = set(re.findall(r"\bmake ([a-z]+)\b", guide))
    assert {"check", "test", "lock"} <= named
    assert named <= make_targets()
    for path in re.findall(r"`((?:regcore|benchmarks|tests|config|docs)/[\w/.-]+)`", guide):
        assert (ROOT / path).exists(), path
    for path in re.findall(r"python (benchmarks/\w+\.py)", guide):
        assert (ROOT / path).exists(), path


def test_continuous_integration_runs_the_commands_of_the_makefile():
    jobs = load(".github/workflows/test.yml")["jobs"].values()
    commands = [step["run"] for job in jobs for step in job["steps"] if "run" in step]
    assert commands == ["make check", "make test"]
    assert {command.split()[1] for command in commands} <= make_targets()


def test_hooks_are_the_tools_of_the_virtual_environment():
    (repository,) = load(".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local", "nothing has to be downloaded"
    for hook in repository["hooks"]:
        assert hook["language"] == "system"
        program = hook["entry"].split()[0]
        assert program.startswith(".venv/bin/") and (BIN / program.removeprefix(".venv/bin/")).exists()


def test_lock_files_hold_what_the_project_declares():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for name, wanted in (
        ("requirements.lock", [*project["dependencies"], *extras["workflow"]]),
        ("requirements-test.lock", [*project["dependencies"], *extras["workflow"], *extras["test"]]),
    ):
        locked = {plain(line.split("==")[0]) for line in (ROOT / name).read_text().splitlines()}
        missing = {plain(re.split(r"[^\w.-]", line)[0]) for line in wanted} - locked
        assert not missing, f"{name} lacks {missing}; run: make lock"


def plain(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def test_configuration_files_named_in_the_documentation_exist():
    pages = [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *ROOT.glob("docs/**/*.md"),
        ROOT / "benchmarks" / "README.md",
    ]
    for page in pages:
        for path in re.findall(r"config/(?:studies/)?[\w-]+\.yaml", page.read_text()):
            own = path.endswith(("/mine.yaml", "/my-study.yaml"))  # the reader's
            assert own or (ROOT / path).exists(), f"{page.relative_to(ROOT)} names {path}"
