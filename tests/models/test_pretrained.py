"""A model of another study as a method of this one."""

import numpy as np
import pytest
import torch

from regcore.alignment.settings import PreprocessSettings
from regcore.errors import InputError
from regcore.images.volume import Grid, Volume
from regcore.methods import make_method
from regcore.models.trained import save_model
from regcore.study.plan import plan_study
from regcore.study.stages.register import method_to_register
from regcore.training.trainer import Trained

GRID = Grid.centred((32, 32), (1.5, 1.5), (0, 0))
PREPROCESS = PreprocessSettings(affine="affine")


def disc(radius):
    places = np.stack(np.meshgrid(*[np.arange(32) - 15.5] * 2))
    return Volume((np.linalg.norm(places, axis=0) < radius).astype(np.float32), GRID)


def saved(folder, name, settings):
    torch.manual_seed(0)
    method = make_method(name, settings)
    method.module = method.build(2)
    for weight in method.module.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    save_model(folder, name, method, Trained(method.module.state_dict(), [], {}), disc(8), GRID, PREPROCESS)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("models") / "vm", "voxelmorph", {"architecture": "paper-diff"})


@pytest.fixture(scope="module")
def hyper(tmp_path_factory):
    settings = {"architecture": "paper-diff", "hidden": [4], "lambda": 0.5}
    return saved(tmp_path_factory.mktemp("models") / "hm", "hypermorph", settings)


def study(**methods):
    cohort = {"embedded": {"ndim": 2, "train": 2, "validation": 2, "test": 2}}
    return plan_study({"study": "x", "cohort": cohort, "methods": methods})


def field(method):
    return method.register(disc(8), disc(10)).field.displacement


def test_it_registers_as_the_model_does(model):
    from regcore.models.trained import load_model

    pretrained = make_method("pretrained", {"model": str(model)})
    assert torch.equal(field(pretrained), field(load_model(model).method))
    assert field(pretrained).abs().max() > 0


def test_a_hypernetwork_takes_other_values(hyper):
    stored = make_method("pretrained", {"model": str(hyper)})
    other = make_method("pretrained", {"model": str(hyper), "values": {"lambda": 0.9}})
    assert not torch.equal(field(stored), field(other))


def test_a_study_does_not_train_it_and_depends_on_its_folder(model):
    plan = study(other={"method": "pretrained", "model": str(model)}, affine=None)
    other, affine = plan.entries["other"], plan.entries["affine"]
    assert not other.learned and other.training_pairs is None
    assert other.model_folder == model and affine.model_folder is None
    assert torch.equal(
        field(method_to_register(plan, "other", model)), field(make_method("pretrained", {"model": str(model)}))
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "'model' must be the folder of a trained model"),
        ({"model": "nowhere"}, "nowhere is no trained model"),
    ],
)
def test_what_is_no_model(settings, message):
    with pytest.raises(InputError, match=f"methods.other: {message}"):
        study(other={"method": "pretrained", **settings})


def test_values_without_a_hypernetwork(model):
    with pytest.raises(InputError, match="'values' change nothing"):
        field(make_method("pretrained", {"model": str(model), "values": {"lambda": 0.9}}))


def test_a_model_of_another_dimension_is_refused_when_the_study_is_planned(model):
    cohort = {"embedded": {"ndim": 3, "train": 2, "validation": 2, "test": 2}}
    methods = {"other": {"method": "pretrained", "model": str(model)}}
    with pytest.raises(InputError, match=r"methods.other.model: a 2-D model cannot register 3-D images"):
        plan_study({"study": "x", "cohort": cohort, "methods": methods})
