"""The experiments of all papers that a study's file asks for."""

import json
from collections.abc import Mapping

import pandas as pd

from regcore.experiments import Experiments, autoreg, hypermorph, spr, synthmorph, voxelmorph
from regcore.methods import make_entry, method_info, method_of


def planned_experiments(
    wanted: Mapping, methods: Mapping[str, dict], scans: pd.DataFrame, test_pairs: pd.DataFrame
) -> dict[str, Experiments]:
    """Paper → its experiments.

    Parameters
    ----------
    wanted : mapping
        The study's ``experiments``, checked: paper → settings or None.
    methods : mapping
        The study's methods that can run here, by name.
    scans : DataFrame
        The cohort's table.
    test_pairs : DataFrame

    Raises
    ------
    InputError
        An experiment needs what the cohort does not have.
    """
    training = scans[scans["split"] == "train"]
    labelled = bool((training["labels"] != "").all())
    found = {}
    if wanted["voxelmorph"] is not None:
        classical = [name for name, values in methods.items() if _is_classical(method_of(name, values))]
        subjects = training["subject"].nunique()
        found["voxelmorph"] = voxelmorph.experiments(wanted["voxelmorph"], classical, subjects, labelled)
    if wanted["hypermorph"] is not None:
        found["hypermorph"] = hypermorph.experiments(wanted["hypermorph"], labelled)
    if wanted["autoreg"] is not None:
        compared = [name for name, values in methods.items() if not method_info(method_of(name, values)).learned]
        found["autoreg"] = autoreg.experiments(wanted["autoreg"], compared)
    if wanted["spr"] is not None:
        compared = [name for name, values in methods.items() if not method_info(method_of(name, values)).learned]
        found["spr"] = spr.experiments(wanted["spr"], compared, labelled)
    if wanted["synthmorph"] is not None:
        compared = [name for name, values in methods.items() if method_of(name, values) != "identity"]
        networks = [name for name in compared if _network_of(name, methods[name]) in synthmorph.U_NETS]
        found["synthmorph"] = synthmorph.experiments(
            wanted["synthmorph"], compared, networks, test_pairs, scans, labelled
        )
    return found


def _is_classical(method: str) -> bool:
    kind = method_info(method)
    return not (kind.learned or kind.refines or kind.imported or method == "identity")


def _network_of(name: str, values: Mapping) -> str:
    """The method that an entry's network was trained by: its own, or that of the model it takes over."""
    method = method_of(name, values)
    if not method_info(method).pretrained:
        return method
    return json.loads((make_entry(name, values).folder / "model.json").read_text())["method"]
