"""What a training is known by: a finished one is not made again because its settings are written differently."""

import pytest
from support.studies import small_study

from regcore.settings.fingerprint import fingerprint
from regcore.study.stages.train import planned_identity

METHODS = {
    "net": {"method": "voxelmorph", "lambda": 0.01, "gamma": 0.5, "training_subjects": 4},
    "hyper": {"method": "hypermorph", "prior": {"lambda": [0, 1], "gamma": [0, 1]}},
    "spr": {"size": "tiny"},
    "shapes": {"method": "synthmorph", "preset": "paper", "replicate": 2},
}
#: Of studies that were trained when settings were dictionaries.
KNOWN_BY = {
    "net": "8d108dcc659c04f2",
    "hyper": "0736ce6e7ab8168a",
    "spr": "a9bfc13dcb082a48",
    "shapes": "664a5269c9451eb5",
}


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    return small_study(tmp_path_factory.mktemp("study"), METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_trainings_are_known_by_what_they_were_known_by(plan, name):
    """Without the files of the images, which differ from place to place."""
    method = plan.entries[name].make()
    method.fit_to((32, 32))
    assert fingerprint(*planned_identity(plan, name, method, {1: 1})) == KNOWN_BY[name]
