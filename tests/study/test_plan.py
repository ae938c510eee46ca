"""What a study's plan makes of its settings, before anything runs."""

import pickle

import pytest

from regcore.errors import InputError
from regcore.study.plan import plan_study

PAIRINGS = [["T1w", "T1w"], ["T1w", "T2w"]]


def study(**methods):
    cohort = {"embedded": {"ndim": 2, "train": 3, "validation": 3, "test": 2, "contrasts": ["T1w", "T2w", "PDw"]}}
    config = {"study": "x", "cohort": cohort, "methods": methods, "pairs": {"contrasts": PAIRINGS, "validation": 4}}
    return plan_study(config)


def contrasts_in(plan, pairs):
    contrast = plan.cohort.table["contrast"]
    return {(contrast[fixed], contrast[moving]) for fixed, moving in pairs}


def test_training_takes_the_contrasts_of_the_study_or_its_own():
    own = {"method": "voxelmorph", "training_contrasts": [["T1w", "T1w"]]}
    plan = study(voxelmorph=None, own=own, other=own | {"training_contrasts": [["T1w", "T2w"], ["T2w", "T2w"]]})
    training = {name: entry.training_pairs for name, entry in plan.entries.items()}
    found = {name: contrasts_in(plan, pairs) for name, pairs in training.items()}
    assert found["voxelmorph"] == {("T1w", "T1w"), ("T1w", "T2w")}
    assert found["own"] == {("T1w", "T1w")} and found["other"] == {("T1w", "T2w"), ("T2w", "T2w")}


def test_weights_are_chosen_on_validation_pairs_of_the_trainings_contrasts():
    own = {"method": "voxelmorph", "training_contrasts": [["T1w", "T2w"], ["T2w", "T2w"]]}
    plan = study(voxelmorph=None, own=own)
    assert len(plan.validation_pairs("voxelmorph")) == 8
    assert list(plan.validation_pairs("own")["contrasts"]) == ["T2w to T1w"] * 4


def test_a_training_whose_contrasts_no_validation_pair_has():
    with pytest.raises(InputError, match=r"methods.own.training_contrasts: no validation pair .* 'pairs.contrasts'"):
        study(own={"method": "voxelmorph", "training_contrasts": [["PDw", "PDw"]]})


def test_only_scans_that_some_pair_has_are_prepared():
    plan = study(own={"method": "voxelmorph", "training_contrasts": [["T1w", "T1w"]]})
    training = [scan for scan in plan.scans if plan.cohort.table.at[scan, "split"] == "train"]
    assert {plan.cohort.table.at[scan, "contrast"] for scan in training} == {"T1w"}


def test_a_plan_can_be_sent_to_another_process_without_its_methods():
    plan = study(voxelmorph=None, better={"method": "refine", "start": "voxelmorph"}, dipy=None, syn=None)
    assert "made" in vars(plan.entries["voxelmorph"])
    again = pickle.loads(pickle.dumps(plan))
    assert "made" not in vars(again.entries["voxelmorph"])
    assert again.entries["better"].peers["voxelmorph"] is again.entries["voxelmorph"]
    assert again.entries["voxelmorph"].made.settings == plan.entries["voxelmorph"].made.settings
    assert again.entries["voxelmorph"].training_pairs.identity == plan.entries["voxelmorph"].training_pairs.identity
