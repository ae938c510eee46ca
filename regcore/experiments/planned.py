"""Planning the papers' experiments in a study."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from regcore.experiments import Compared, Paper, autoreg, hypermorph, spr, synthmorph, voxelmorph
from regcore.experiments.settings import (
    AutoRegExperiments,
    ExperimentSettings,
    HyperMorphExperiments,
    SprExperiments,
    SynthMorphExperiments,
    VoxelMorphExperiments,
)


@dataclass(frozen=True, eq=False)
class Study:
    """What is known about a study when its experiments are planned.

    Parameters
    ----------
    methods : mapping of str → Compared
        The methods that can run here.
    scans : DataFrame
        The cohort's table.
    test_pairs : DataFrame
        The test pairs.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> import pandas as pd
    >>> from regcore.experiments.planned import Study
    >>> from regcore.methods import method_info
    >>> methods = {
    ...     name: SimpleNamespace(method=name, network=name, info=method_info(name))
    ...     for name in ("identity", "affine", "syn", "voxelmorph")
    ... }
    >>> scans = pd.DataFrame({"subject": ["a", "b"], "split": "train", "labels": ["a.nii", ""]})
    >>> study = Study(methods, scans, test_pairs=pd.DataFrame())
    >>> study.classical, study.labelled
    (['affine', 'syn'], False)
    """

    methods: Mapping[str, Compared]
    scans: pd.DataFrame
    test_pairs: pd.DataFrame

    @property
    def training(self) -> pd.DataFrame:
        """The training scans."""
        return self.scans[self.scans["split"] == "train"]

    @property
    def labelled(self) -> bool:
        """Whether all training scans have labels."""
        return bool((self.training["labels"] != "").all())

    @property
    def not_learned(self) -> list[str]:
        """The methods that the study does not train."""
        return [name for name, entry in self.methods.items() if not entry.info.learned]

    @property
    def classical(self) -> list[str]:
        """The methods that register without any training, except identity."""
        return [name for name, entry in self.methods.items() if _is_classical(entry)]


def _is_classical(entry: Compared) -> bool:
    info = entry.info
    return not (info.learned or info.refines or info.imported or entry.method == "identity")


def _voxelmorph(settings: VoxelMorphExperiments, study: Study) -> Paper:
    subjects = study.training["subject"].nunique()
    return voxelmorph.experiments(settings, study.classical, subjects, study.labelled)


def _hypermorph(settings: HyperMorphExperiments, study: Study) -> Paper:
    return hypermorph.experiments(settings, study.labelled)


def _autoreg(settings: AutoRegExperiments, study: Study) -> Paper:
    return autoreg.experiments(settings, study.not_learned)


def _spr(settings: SprExperiments, study: Study) -> Paper:
    return spr.experiments(settings, study.not_learned, study.labelled)


def _synthmorph(settings: SynthMorphExperiments, study: Study) -> Paper:
    compared = {name: entry for name, entry in study.methods.items() if entry.method != "identity"}
    networks = [name for name, entry in compared.items() if entry.network in synthmorph.U_NETS]
    return synthmorph.experiments(settings, list(compared), networks, study.test_pairs, study.scans, study.labelled)


#: Name of a paper, which is also a target of the workflow and a key of a study's ``experiments`` → its planner.
PAPERS: dict[str, Callable[[Any, Study], Paper]] = {
    "voxelmorph": _voxelmorph,
    "hypermorph": _hypermorph,
    "autoreg": _autoreg,
    "spr": _spr,
    "synthmorph": _synthmorph,
}


def planned_papers(wanted: ExperimentSettings, study: Study) -> dict[str, Paper]:
    """The experiments that a study asks for.

    Parameters
    ----------
    wanted : ExperimentSettings
        The study's ``experiments``.
    study : Study
        The study.

    Returns
    -------
    dict of str → Paper
        By the paper's name.

    Raises
    ------
    InputError
        An experiment needs something that the cohort does not have.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> import pandas as pd
    >>> from regcore.experiments.planned import Study, planned_papers
    >>> from regcore.experiments.settings import ExperimentSettings
    >>> from regcore.methods import method_info
    >>> scans = pd.DataFrame({"subject": ["a", "b"], "split": "train", "labels": ["", ""]})
    >>> affine = SimpleNamespace(method="affine", network="affine", info=method_info("affine"))
    >>> study = Study({"affine": affine}, scans, test_pairs=pd.DataFrame())
    >>> papers = planned_papers(ExperimentSettings.read({"voxelmorph": {}}, "experiments"), study)
    >>> {name: paper.names for name, paper in papers.items()}  # without labels, none that varies γ
    {'voxelmorph': ['fig5', 'fig7', 'fig8', 'table1', 'table2', 'table3']}
    """
    return {name: plan(wanted.value(name), study) for name, plan in PAPERS.items() if wanted.value(name) is not None}
