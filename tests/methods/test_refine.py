"""Refinement: it starts from a network's field, lowers the network's own loss, and leaves the network alone."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from regcore.errors import InputError
from regcore.images.volume import Grid, Volume
from regcore.methods import make_method
from regcore.methods.base import as_tensor
from regcore.study.plan import plan_study

SHAPE = (28, 20)  # no multiple of the network's stride: flows live on a padded grid
GRID = Grid.centred(SHAPE, (1.5, 1.5), (0, 0))
FLOWS = {
    "velocity": {"flow": "velocity"},
    "velocity-full": {"flow": "velocity", "flow_resolution": 1, "bidirectional": True},
    "displacement": {"preset": "paper"},
}
per_flow = pytest.mark.parametrize("flow", FLOWS)


def network(**settings):
    """A network that no one trained, whose last layer is so large that it predicts about a voxel."""
    method = make_method("voxelmorph", {"lambda": 0.01, **settings})
    torch.manual_seed(0)
    method.module = method.build(2).eval()
    with torch.no_grad():
        list(method.module.parameters())[-2].mul_(2e5)
    return method


def refine(start, **settings):
    method = make_method("refine", {"start": "vm", "iterations": 15, "step": 0.05, **settings})
    method.start_from(start)
    return method


@pytest.fixture
def pairs(generator):
    """Two pairs of smooth images."""
    images = [gaussian_filter(generator.random(SHAPE), 2).astype("f4") for _ in range(4)]
    images = [Volume((image - image.min()) / np.ptp(image), GRID) for image in images]
    return [tuple(images[:2]), tuple(images[2:])]


def flows(start, refinement, pair):
    """The network's flow, and the refined one."""
    images = [as_tensor(volume) for volume in pair]
    with torch.no_grad():
        flow = start.predict(start.module, *images)
    return flow, refinement.refined(flow, *images)


def loss(start, flow, pair):
    fixed, moving = (as_tensor(volume) for volume in pair)
    return start.losses(flow, {"fixed": fixed, "moving": moving})["total"].item()


@pytest.mark.slow
@per_flow
@pytest.mark.parametrize("similarity", ["mse", "lncc"])
def test_refinement_lowers_the_networks_own_loss(flow, similarity, pairs):
    start = network(**FLOWS[flow] | {"similarity": similarity})
    for pair in pairs:
        before, after = (loss(start, one, pair) for one in flows(start, refine(start), pair))
        longer = loss(start, flows(start, refine(start, iterations=45), pair)[1], pair)
        assert longer < after < before


def test_a_field_is_refined_together_with_its_weight_volume(pairs):
    """The posterior of TM-SPR is one of both (Eq. 6)."""
    start = make_method("spr", {"size": "tiny", "norm": "instance", "time_steps": 1, "lambda_max": 0.1})
    torch.manual_seed(0)
    start.module = start.build(2).eval()
    with torch.no_grad():
        start.module.network.heads[0].convolution.weight.mul_(1e4)
    for pair in pairs:
        flow, refined = flows(start, refine(start), pair)
        assert loss(start, refined, pair) < loss(start, flow, pair)
        assert refine(start).register(*pair).field.displacement.shape == (1, 2, *SHAPE)


@per_flow
def test_no_iterations_return_the_networks_field(flow, pairs):
    start = network(**FLOWS[flow])
    found, expected = (method.register(*pairs[0]) for method in (refine(start, iterations=0), start))
    assert expected.field.displacement.abs().max() > 0.1
    assert torch.equal(found.field.displacement, expected.field.displacement)
    assert (found.inverse is None) == (expected.inverse is None) == (flow == "displacement")
    if found.inverse is not None:
        assert torch.equal(found.inverse.displacement, expected.inverse.displacement)


@per_flow
def test_the_refined_field_is_that_of_the_refined_flow(flow, pairs):
    start = network(**FLOWS[flow])
    refinement = refine(start)
    _, refined = flows(start, refinement, pairs[0])
    forward, inverse = start.displacements(refined, as_tensor(pairs[0][0]))
    found = refinement.register(*pairs[0])
    assert torch.equal(found.field.displacement, forward)
    assert not torch.equal(forward, start.register(*pairs[0]).field.displacement)
    assert found.inverse is None if inverse is None else torch.equal(found.inverse.displacement, inverse)
    assert found.field.grid is GRID and not found.field.displacement.requires_grad


def test_a_first_step_of_adam_is_as_long_as_the_setting_says(pairs):
    start = network()
    before, after = flows(start, refine(start, iterations=1, step=0.07), pairs[0])
    moved = (after - before).abs()
    assert moved.max().item() == pytest.approx(0.07, rel=1e-3)
    assert (moved > 0.06).float().mean() > 0.8


@per_flow
@pytest.mark.parametrize("trainable", [True, False])
def test_the_network_is_left_as_it_was(flow, trainable, pairs):
    start = network(**FLOWS[flow])
    start.module.requires_grad_(trainable)
    before = {name: value.clone() for name, value in start.module.state_dict().items()}
    refine(start).register(*pairs[0])
    assert all(torch.equal(value, before[name]) for name, value in start.module.state_dict().items())
    assert all(p.grad is None and p.requires_grad == trainable for p in start.module.parameters())


def test_every_pair_is_refined_by_itself(pairs):
    start = network()
    refinement = refine(start)
    forwards = [refinement.register(*pair).field.displacement for pair in pairs]
    backwards = [refinement.register(*pair).field.displacement for pair in pairs[::-1]][::-1]
    assert all(torch.equal(a, b) for a, b in zip(forwards, backwards, strict=True))
    assert not torch.equal(*forwards)


def test_refinement_works_where_the_caller_wants_no_gradients(pairs):
    refinement = refine(network())
    expected = refinement.register(*pairs[0]).field.displacement
    with torch.no_grad():
        assert torch.equal(refinement.register(*pairs[0]).field.displacement, expected)


@pytest.mark.parametrize(("name", "settings"), [("voxelmorph", {"gamma": "infinity"}), ("synthmorph", {})])
def test_a_model_of_labels_alone_cannot_be_refined(name, settings):
    with pytest.raises(InputError, match="needs labels, so it cannot refine"):
        make_method("refine", {"start": "x"}).start_from(make_method(name, settings))


def test_a_model_trained_with_labels_is_refined_by_the_images(pairs):
    """Eq. 10 without its labels is Eq. 4."""
    plain, labelled = (network(gamma=gamma) for gamma in (0, 0.1))
    found, expected = (refine(start).register(*pairs[0]).field.displacement for start in (labelled, plain))
    assert torch.equal(found, expected)


def test_a_refinement_that_was_given_no_network_does_not_register(pairs):
    with pytest.raises(RuntimeError, match="needs the network it starts from"):
        make_method("refine", {"start": "vm"}).register(*pairs[0])


def study(**methods):
    cohort = {"embedded": {"ndim": 2, "train": 2, "validation": 2, "test": 2}}
    return plan_study({"study": "x", "cohort": cohort, "methods": methods})


def test_a_study_refines_its_own_learned_methods():
    plan = study(mine={"method": "voxelmorph"}, better={"method": "refine", "start": "mine"}, syn=None)
    assert [plan.entries[name].model for name in ("mine", "better", "syn")] == ["mine", "mine", None]
    assert plan.entries["better"].settings == {"start": "mine"}
    assert not plan.entries["better"].learned


@pytest.mark.parametrize("mine", [{"method": "voxelmorph", "gamma": "infinity"}, {"method": "synthmorph"}])
def test_a_study_refines_no_network_that_looks_at_labels_alone(mine):
    with pytest.raises(InputError, match=r"methods\.better\.start: mine: this network's loss needs labels"):
        study(mine=mine, better={"method": "refine", "start": "mine"})


@pytest.mark.parametrize(
    ("start", "words"),
    [
        ("voxelmorf", "not 'voxelmorf'; did you mean 'voxelmorph'?"),
        ("syn", "must be a learned method of the study, not 'syn'"),
        ("better", "must be a learned method of the study, not 'better'"),
        (None, "'start' must be a learned method of the study, not None; known are: voxelmorph"),
    ],
)
def test_a_study_cannot_refine_what_it_does_not_train(start, words):
    with pytest.raises(InputError, match=r"methods\.better: ") as caught:
        study(voxelmorph=None, syn=None, better={"method": "refine", "start": start})
    assert words in str(caught.value)


def test_a_study_that_trains_nothing_has_nothing_to_refine():
    with pytest.raises(InputError, match=r"not 'voxelmorph'; there are none$"):
        study(better={"method": "refine", "start": "voxelmorph"})
