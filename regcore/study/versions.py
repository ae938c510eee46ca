"""Versions of a study's stages, so that a finished job runs again when its code has changed.

Every job carries the version of its stage as a parameter, because Snakemake does not see a change inside a module.
``versions.json`` records a number and a fingerprint of the sources for every stage and every method.  As long as the
sources match the record, the version is the number, so results of one release stay valid in the next.  If they were
edited, or the method comes from another package, the version includes the fingerprint, and the jobs that run this
code run again.  A test of this repository fails until an edit is recorded::

    python -m regcore.study.versions                        # results are unchanged: record the sources
    python -m regcore.study.versions --raise train spr      # results change: also raise these stages and methods
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import click

from regcore.errors import InputError, did_you_mean
from regcore.methods import METHODS, method_info
from regcore.process.files import atomic_write
from regcore.study.sources import Source, Sources, fingerprint, folder_of, hash_of

PACKAGE = Path(__file__).resolve().parents[1]
RECORD = Path(__file__).with_name("versions.json")

#: Modules that no stage counts: they report errors, plan (plans reach jobs as parameters), or decide how a job runs
#: and writes rather than what it computes.  ``package.`` is only the package's ``__init__``.
NEVER_COUNTED = (
    "regcore.",
    "regcore.errors",
    "regcore.checks",
    "regcore.process",
    "regcore.settings",
    "regcore.autoreg.settings",
    "regcore.cohort.settings",
    "regcore.experiments.settings",
    "regcore.tuning.settings",
    "regcore.methods.",
    "regcore.methods.requirements",
    "regcore.study.plan",
    "regcore.study.entry",
    "regcore.study.layout",
    "regcore.study.checks",
    "regcore.study.job",
    "regcore.study.versions",
)

#: Left out by stages that read finished fields and models: the code that made them counts where they were made.
MAKES_RESULTS = ("regcore.methods", "regcore.models", "regcore.training", "regcore.alignment", "regcore.losses")


@dataclass(frozen=True)
class Stage:
    """The modules and scripts of a stage.

    Parameters
    ----------
    roots : tuple of str
        Modules, with everything they import.  ``package.*`` stands for all modules of a package.
    scripts : tuple of str
        Names of files in ``workflow/scripts``.
    without : tuple of str
        Modules and packages that do not count, in addition to ``NEVER_COUNTED``.
    data : tuple of str
        Files of the package that are not modules.

    Examples
    --------
    >>> from regcore.study.versions import STAGES
    >>> STAGES["train"].roots, STAGES["train"].scripts
    (('regcore.study.stages.train',), ('train',))
    """

    roots: tuple[str, ...]
    scripts: tuple[str, ...]
    without: tuple[str, ...] = ()
    data: tuple[str, ...] = ()


def _stage(module: str, *scripts: str, without: tuple[str, ...] = ()) -> Stage:
    return Stage((f"regcore.study.stages.{module}",), scripts, without)


STAGES = {
    "list_cohort": _stage("listing", "list_cohort", without=MAKES_RESULTS),
    "synthesise": Stage(("regcore.synthesis.icbm152",), ("synthesise",)),
    "truth": _stage("register", "true_fields", without=MAKES_RESULTS),
    "check": _stage("listing", "check_cohort", "list_pairs"),
    "prepare": _stage("prepare", "prepare"),
    "train": _stage("train", "train"),  # the result of an architecture search is an input file
    "trial": _stage("tune", "trial"),
    "search": _stage("tune", "search"),
    "architecture": _stage("architecture", "architecture"),
    "sweep": _stage("sweep", "sweep"),
    "features": _stage("features", "features", without=("regcore.training",)),
    "weights": _stage("weights", "weights", without=("regcore.training",)),
    "register": _stage("register", "register", "import_fields", without=("regcore.training",)),
    "evaluate": _stage("score", "evaluate", without=(*MAKES_RESULTS, "regcore.study.stages.register")),
    "report": Stage(
        ("regcore.reporting.*", "regcore.study.results"),
        ("tables", "pictures", "training_curves", "search_figure", "architecture_figure", "write_report"),
        (*MAKES_RESULTS, "regcore.study.stages"),
        ("reporting/page.html.j2",),
    ),
    "experiment": Stage(
        ("regcore.papers.*", "regcore.study.results"), ("experiment",), (*MAKES_RESULTS, "regcore.study.stages")
    ),
}


@dataclass(frozen=True, eq=False)
class Versions:
    """The versions of stages for the present code.

    Parameters
    ----------
    scripts : Path, optional
        Folder of the workflow's scripts; without it, scripts do not count.
    cache : Path, optional
        A file that caches what was read from the sources.
    package : Path
        The folder of regcore.
    record : Path
        The recorded numbers and fingerprints.

    Examples
    --------
    >>> from regcore.study.versions import Versions
    >>> modules = Versions().modules_of("synthesise")
    >>> "regcore.synthesis.icbm152" in modules, "regcore.training.trainer" in modules
    (True, False)
    """

    scripts: Path | None = None
    cache: Path | None = None
    package: Path = PACKAGE
    record: Path = RECORD
    _found: dict[tuple[str, ...], int | str] = field(default_factory=dict, init=False)
    _sources: dict[str, Sources] = field(default_factory=dict, init=False)

    @property
    def recorded(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Kind (``stages`` or ``methods``) → name → ``version sources [scripts]``."""
        return json.loads(self.record.read_text())

    def of(self, stage: str, *methods: str) -> int | str:
        """The version of a stage that runs ``methods``.

        Returns
        -------
        int or str
            The stage's number; a string if the sources differ from the record, or a method has its own number.
        """
        key = stage, *sorted(set(methods))
        if key not in self._found:
            self._found[key] = self._of(*key)
            self._regcore.keep()
        return self._found[key]

    def _of(self, stage: str, *methods: str) -> int | str:
        recorded = self.recorded
        own, version = recorded["stages"][stage], str(recorded["stages"][stage]["version"])
        edited = [value for key, value in self.stage_sources(stage).items() if value != own[key]]
        for method in methods:
            known = recorded["methods"].get(method, {"version": 1, "sources": None})
            if known["version"] > 1:
                version += f".{method}-{known['version']}"
            if (found := self.method_sources(method)) != known["sources"]:
                edited.append(found)
        if edited:
            return f"{version}+{hash_of(edited)}"
        return int(version) if version.isdigit() else version

    @property
    def _regcore(self) -> Sources:
        return self._with("regcore")

    def _with(self, package: str) -> Sources:
        """The sources of regcore and of another package."""
        if package not in self._sources:
            other = None if package == "regcore" else folder_of(package)
            packages = {"regcore": self.package, **({package: other} if other else {})}
            self._sources[package] = Sources(packages, self.cache if package == "regcore" else None)
        return self._sources[package]

    def stage_sources(self, stage: str) -> dict[str, str]:
        """Fingerprints of a stage: ``sources``, and ``scripts`` if their folder is known."""
        data = [(self.package / path).read_text(encoding="utf-8") for path in STAGES[stage].data]
        found = {"sources": hash_of([fingerprint(self.modules_of(stage)), *data])}
        if self.scripts is not None:
            names = STAGES[stage].scripts
            found["scripts"] = fingerprint(
                Sources({name: self.scripts / f"{name}.py" for name in names}).closure(names)
            )
        return found

    def modules_of(self, stage: str) -> dict[str, Source]:
        """Name → source of the modules of regcore that a stage counts."""
        roots = [name for root in STAGES[stage].roots for name in self._modules(root)]
        return self._regcore.closure(roots, (*NEVER_COUNTED, *STAGES[stage].without))

    def _modules(self, root: str) -> Iterator[str]:
        if not root.endswith(".*"):
            yield root
            return
        folder = self.package.joinpath(*root.split(".")[1:-1])
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(self.package.parent).with_suffix("").parts
            yield ".".join(part for part in parts if part != "__init__")

    def method_sources(self, method: str) -> str:
        """Fingerprint of a method: its module and everything that it imports, except the code for training."""
        module = method_info(method).location.partition(":")[0]
        sources = self._with(module.partition(".")[0])
        return fingerprint(sources.closure([module], (*NEVER_COUNTED, "regcore.training")))

    def found(self) -> dict[str, dict[str, dict[str, str]]]:
        """The record for the present sources."""
        ours = [name for name in METHODS if METHODS[name].location.startswith("regcore.")]
        return {
            "stages": {stage: self.stage_sources(stage) for stage in STAGES},
            "methods": {method: {"sources": self.method_sources(method)} for method in ours},
        }

    def edited(self) -> list[str]:
        """The stages and methods whose sources differ from the record."""
        recorded = self.recorded
        return [
            name
            for kind, entries in self.found().items()
            for name, found in entries.items()
            if {key: recorded[kind].get(name, {}).get(key) for key in found} != found
        ]

    def write_record(self, raised: tuple[str, ...] = ()) -> None:
        """Record the present sources, and raise the numbers of some stages and methods.

        Raises
        ------
        InputError
            There is no such stage or method.
        """
        recorded, found = self.recorded, self.found()
        known = [*found["stages"], *found["methods"]]
        for name in raised:
            if name not in known:
                raise InputError(f"no stage or method '{name}'{did_you_mean(name, known)}")
        record = {
            kind: {
                name: {"version": recorded[kind].get(name, {"version": 1})["version"] + (name in raised), **sources}
                for name, sources in entries.items()
            }
            for kind, entries in found.items()
        }
        with atomic_write(self.record) as path:
            path.write_text(json.dumps(record, indent=1) + "\n")


@cache
def _here() -> Versions:
    return Versions()


def stage_version(stage: str, *methods: str) -> int | str:
    """The version of a stage that runs ``methods``, without the workflow's scripts; :meth:`Versions.of`.

    Parameters
    ----------
    stage : str
        One of :data:`STAGES`.
    *methods : str
        Names of methods.

    Returns
    -------
    int or str
        As :meth:`Versions.of`.
    """
    return _here().of(stage, *methods)


@click.command(help="Record the sources of a study's stages and methods.")
@click.option("--raise", "raised", is_flag=True, help="Raise the numbers of the named stages and methods.")
@click.argument("names", nargs=-1)
def main(raised: bool, names: tuple[str, ...]) -> None:
    if bool(names) != raised:
        raise click.UsageError("names of stages and methods go with --raise, and only with it")
    scripts = PACKAGE.parent / "workflow" / "scripts"
    if not scripts.is_dir():
        raise click.UsageError(f"{scripts}: no such folder; run this in a clone of the repository")
    versions = Versions(scripts)
    edited = versions.edited()
    try:
        versions.write_record(names)
    except InputError as error:
        raise click.UsageError(str(error)) from None
    click.echo(f"Recorded: {', '.join(edited) or 'nothing, no source was edited'}")


if __name__ == "__main__":
    sys.exit(main())
