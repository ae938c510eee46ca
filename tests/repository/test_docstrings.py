"""Docstrings of public functions and classes: numpydoc sections in one order, with examples that run as they stand.

Public is what a room exports, and every function and class of its modules whose name has no underscore in front.  In
``regcore.kernels`` only what an operator's ``__init__`` defines is public: the rest is called by the operators alone.
Classes of settings describe each key where it is declared.
"""

import ast
import doctest
import importlib
import inspect
import re

import pytest
from support.paths import ROOT

from regcore.settings.base import Section, Settings

ROOMS = (
    "alignment",
    "autoreg",
    "cohort",
    "commands",
    "evaluation",
    "experiments",
    "images",
    "kernels",
    "losses",
    "methods",
    "models",
    "networks",
    "papers",
    "process",
    "reporting",
    "settings",
    "spatial",
    "study",
    "synthesis",
    "training",
    "tuning",
)
ORDER = ("Parameters", "Attributes", "Returns", "Yields", "Raises", "Notes", "References", "Examples")

STEP = "is a step of another function or class, which has the example"
#: Public names without an example, by the reason.  Steps may be described in one line.
EXCEPTIONS = {
    "takes seconds": (
        "study.stages.listing.check_cohort",
        "alignment.optimisation.optimise_affine",
        "alignment.with_ants.align_with_ants",
        "autoreg.path_search.PathSearch",
        "commands.doctor.report",
        "commands.tune.tune_model",
        "images.ants.estimate_affine",
        "images.ants.load",
        "images.ants.read_itk_hdf5",
        "images.ants.to_ants",
        "synthesis.anatomy.Anatomy",
        "synthesis.anatomy.build_anatomy",
        "synthesis.icbm152.label_table",
        "study.stages.listing.write_cohort_tables",
        "synthesis.icbm152.synthesise",
        "training.distributed.launch",
    ),
    "needs a GPU, vmap, or the other end of a pipe": (
        "kernels.sample_convolution.differs_by_sample",
        "kernels.sample_convolution.of_samples",
        "process.cuda_graph.Recording",
        "process.isolation.serve",
    ),
    "changes the whole process": (
        "process.logs.log_to",
        "process.threads.tune_process",
        "study.job.job",
    ),
    "takes the weights of another package's network": (
        "networks.imported.weights_from_monai",
        "networks.imported.weights_from_voxelmorph",
    ),
    "has no code of its own": (
        "cohort.pair_pool.NumberedPairs",
        "experiments.Compared",
        "networks.decoded.Decoding",
        "networks.design.Design",
        "networks.transmorph.TransMorphSize",
    ),
    "reads what other stages of a study wrote": (
        "reporting.searches.against_grid",
        "reporting.searches.importances",
        "reporting.searches.search_figure",
        "reporting.searches.surfaces",
        "reporting.study_report.draw_pairs",
        "reporting.study_report.draw_search",
        "reporting.study_report.draw_training_curves",
        "reporting.study_report.write_page",
        "reporting.study_report.write_tables",
        "study.stages.architecture.search_architecture",
        "study.stages.features.write_features",
        "study.stages.prepare.prepare_scans",
        "study.stages.prepare.reference_image",
        "study.stages.prepare.reference_scan",
        "study.stages.register.import_pairs",
        "study.stages.register.prepared_image",
        "study.stages.register.register_pairs",
        "study.stages.register.true_field",
        "study.stages.register.write_true_fields",
        "study.stages.score.evaluate_method",
        "study.stages.sweep.write_sweep",
        "study.stages.train.labelled_pairs",
        "study.stages.train.train",
        "study.stages.train.training_dice",
        "study.stages.train.training_identity",
        "study.stages.train.validation_pairs",
        "study.stages.tune.collect",
        "study.stages.tune.run_trial",
        "study.stages.tune.store_of",
        "study.stages.weights.write_weights",
    ),
    STEP: (
        "study.checks.check_labels",
        "study.checks.check_landmarks",
        "study.checks.check_reference",
        "alignment.preprocess.placed",
        "autoreg.bilevel.Problem",
        "alignment.preprocess.prepare_image",
        "alignment.resampling.coarsened",
        "alignment.resampling.resample",
        "cohort.pairs.choose_subjects",
        "cohort.pairs.contrasts_of",
        "cohort.pairs.dataset_of",
        "cohort.pairs.draw_pairs",
        "cohort.pairs.task_of",
        "evaluation.overlap.label_maps",
        "evaluation.overlap.positions",
        "evaluation.overlap.sorted_codes",
        "images.ants.fresh_prefix",
        "methods.classical.external.External",
        "methods.classical.external.continued",
        "methods.classical.external.cropped",
        "methods.classical.greedy.call_greedy",
        "methods.flow.FlowMethod",
        "methods.flow.unet_design",
        "methods.hypernetworked.Hypernetworked",
        "methods.objective.ObjectiveMethod",
        "methods.transmorph.transmorph_design",
        "networks.cells.CellDesign",
        "networks.hypernetwork.HypernetworkDesign",
        "networks.imported.Layer",
        "networks.imported.Source",
        "networks.imported.converted",
        "networks.imported.features_first",
        "networks.imported.rectified",
        "networks.swin.Block",
        "networks.swin.Merging",
        "networks.swin.WindowAttention",
        "networks.swin.partition",
        "networks.swin.unpartition",
        "networks.swin.window_mask",
        "networks.swin.window_offsets",
        "networks.transmorph.Convolved",
        "networks.transmorph.TransMorphDesign",
        "networks.transmorph.Upwards",
        "networks.unet.convolution",
        "networks.unet_architecture.named_architecture",
        "networks.weight_volume.WeightedDesign",
        "reporting.page.Report",
        "settings.messages.sentences",
        "study.stages.register.register_external",
        "study.versions.stage_version",
    ),
}
EXCEPTED = {f"regcore.{name}" for names in EXCEPTIONS.values() for name in names}
STEPS = {f"regcore.{name}" for name in EXCEPTIONS[STEP]}


def modules():
    """Names of the modules whose functions and classes are public."""
    for room in ROOMS:
        for path in sorted((ROOT / "regcore" / room).rglob("*.py")):
            if room != "kernels" or path.name == "__init__.py":
                yield ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def public(module):
    """Full name → function or class: those that a module defines, and those that a room exports."""
    exported = getattr(module, "__all__", ())
    found = {}
    for name, value in vars(module).items():
        value = inspect.unwrap(value) if callable(value) else value
        if not (inspect.isfunction(value) or inspect.isclass(value)) or name.startswith("_"):
            continue
        if inspect.isclass(value) and issubclass(value, Settings) and value not in (Settings, Section):
            continue
        if value.__module__ == module.__name__ or name in exported:
            found[f"{value.__module__}.{name}"] = value
    return found


def sections(text):
    """Headings of a docstring in their order, each with its lines."""
    found, lines = [], inspect.cleandoc(text or "").splitlines()
    for line, below in zip(lines, [*lines[1:], ""], strict=False):
        if line and below == "-" * len(line):
            found.append((line, []))
        elif found and not re.fullmatch("-{3,}", line):
            found[-1][1].append(line)
    return found


def disorder(text):
    """What is wrong with the headings of a docstring, in words."""
    headings = [heading for heading, _ in sections(text)]
    lines = inspect.cleandoc(text or "").splitlines()
    if len([line for line in lines if re.fullmatch("-{3,}", line)]) != len(headings):
        yield "has a heading whose line below is of another length"
    elif unknown := set(headings) - set(ORDER):
        yield f"has unknown sections: {', '.join(sorted(unknown))}"
    elif headings != sorted(headings, key=ORDER.index):
        yield f"has its sections in another order: {', '.join(headings)}"


def described(lines):
    """The names that a section describes: ``a, b : Tensor`` describes a and b."""
    names = [line.partition(" : ")[0].split(",") for line in lines if line and not line.startswith(" ")]
    return {name.strip().lstrip("*") for group in names for name in group}


def parameters(documented):
    """Names of the parameters; none for what takes any keywords, such as settings, or inherits its constructor."""
    if inspect.isclass(documented) and "__init__" not in vars(documented):
        return set()
    found = inspect.signature(documented).parameters.values()
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in found):
        return set()
    return {parameter.name for parameter in found}


def lacking(documented, example=True):
    """What the docstring of a function or class lacks, in words."""
    text = inspect.cleandoc(documented.__doc__ or "")
    content = dict(sections(text))
    yield from disorder(text)
    if example and not any(line.startswith(">>> ") for line in content.get("Examples", ())):
        yield "has no example"
    known = described(content.get("Parameters", [])) | described(content.get("Attributes", []))
    if missing := parameters(documented) - known:
        yield f"does not describe {', '.join(sorted(missing))}"
    gives = inspect.isfunction(documented) and inspect.signature(documented).return_annotation not in (None, "None")
    if gives and not {"Returns", "Yields"} & set(content):
        yield "does not say what it returns"
    listed = set(re.findall(r"^\.\. \[(\d+)\]", "\n".join(content.get("References", [])), re.MULTILINE))
    if listed != set(re.findall(r"\[(\d+)\]_", text)):
        yield "does not cite what it lists under References, or the reverse"
    if re.search(r"\bEqs?\.|\bFig\.|\bet al\.|\b(Table|Section) [IVX]", text) and not listed:
        yield "names a part of a paper and has no References"


def test_every_docstring_has_its_sections_in_order():
    """Of the whole package; also of methods, and of what is not public."""
    faults = []
    for path in sorted((ROOT / "regcore").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                faults += [f"{path}, {node.name} {fault}" for fault in disorder(ast.get_docstring(node))]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("name", modules())
def test_docstrings_have_the_sections_of_numpydoc(name):
    faults = [
        f"{full} {fault}"
        for full, value in public(importlib.import_module(name)).items()
        if full not in STEPS
        for fault in lacking(value, example=full not in EXCEPTED)
    ]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("name", modules())
def test_examples_run_as_they_stand_and_leave_nothing_behind(name, tmp_path, monkeypatch):
    """A person can copy them: they import what they use."""
    monkeypatch.chdir(tmp_path)
    runner = doctest.DocTestRunner()
    for full, value in public(importlib.import_module(name)).items():
        text = "\n".join(dict(sections(value.__doc__)).get("Examples", []))
        runner.run(doctest.DocTestParser().get_doctest(text, {}, full, None, 0))
    assert runner.summarize(verbose=False).failed == 0
    assert not list(tmp_path.iterdir())


def test_exceptions_exist_and_have_no_example():
    found = {}
    for name in modules():
        found |= public(importlib.import_module(name))
    assert not EXCEPTED - set(found), "no such public names"
    assert not [name for name in EXCEPTED if "Examples" in dict(sections(found[name].__doc__))]


def test_faults_are_found():
    def bad(a, b) -> int:
        """Sum two numbers (Eq. 3).

        Examples
        --------
        >>> 1 + 1
        2

        Parameters
        ----------
        a : int
            The first.
        """

    def good(a: int) -> int:
        """Double a number.

        Parameters
        ----------
        a : int
            Any number.

        Returns
        -------
        int

        Examples
        --------
        >>> 2 * 1
        2
        """

    assert [*lacking(good)] == []
    assert [fault.partition(":")[0] for fault in lacking(bad)] == [
        "has its sections in another order",
        "does not describe b",
        "does not say what it returns",
        "names a part of a paper and has no References",
    ]
