"""Refinement: it starts from a network's field, lowers its own loss or the network's, and leaves the network alone."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from regcore import losses
from regcore.errors import InputError
from regcore.evaluation.regularity import folds
from regcore.images.volume import Grid, Volume
from regcore.methods import make_method
from regcore.methods.base import as_tensor
from regcore.methods.settings.refine import ENOUGH, LAMBDA, WITHOUT_IMAGES
from regcore.models.released import named_model
from regcore.spatial import warp
from regcore.study.plan import plan_study
from regcore.study.stages.register import method_to_register

SHAPE = (28, 20)  # no multiple of the network's stride: flows live on a padded grid
GRID = Grid.centred(SHAPE, (1.5, 1.5), (0, 0))
FLOWS = {
    "velocity": {"flow": "velocity"},
    "velocity-full": {"flow": "velocity", "flow_resolution": 1, "bidirectional": True},
    "displacement": {"preset": "paper"},
}
per_flow = pytest.mark.parametrize("flow", FLOWS)
#: Networks whose losses compare labels alone.
OF_LABELS = {"synthmorph": {"width": 0.125}, "voxelmorph": {"gamma": "infinity"}}
of_labels = pytest.mark.parametrize("name", OF_LABELS)


def network(name="voxelmorph", **settings):
    """A network that no one trained, whose last layer is so large that it predicts about a voxel."""
    method = make_method(name, {"lambda": 0.01, **settings})
    torch.manual_seed(0)
    method.module = method.build(2).eval()
    with torch.no_grad():
        list(method.module.parameters())[-2].mul_(2e5 if name == "voxelmorph" else 0.05)
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


def unlikeness(found, fixed, moving):
    """What a descent lowers if nothing is chosen, of a registration."""
    warped = warp(as_tensor(moving), found.field.displacement)
    smoothness = losses.diffusion(found.field.displacement)
    return (losses.lncc(as_tensor(fixed), warped, 5) + LAMBDA[WITHOUT_IMAGES] * smoothness).item()


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


@of_labels
def test_a_network_that_compares_no_images_is_refined_by_a_similarity_of_them(name, pairs):
    start = network(name, **OF_LABELS[name])
    method = refine(start)
    assert (method.settings.similarity, method.settings.lambda_) == (WITHOUT_IMAGES, LAMBDA[WITHOUT_IMAGES])
    for fixed, moving in pairs:
        before, after = (unlikeness(one.register(fixed, moving), fixed, moving) for one in (start, method))
        longer = unlikeness(refine(start, iterations=45).register(fixed, moving), fixed, moving)
        assert longer < after < before


@pytest.mark.parametrize("similarity", LAMBDA)
@pytest.mark.parametrize("name", ["voxelmorph", "synthmorph"])
def test_the_loss_is_a_similarity_and_the_weighted_diffusion_of_the_displacement(name, similarity, pairs):
    """Both are written out here; λ is large enough for either term to count."""
    given = {"similarity": similarity, "lambda": 0.3}
    given |= {"lncc": {"window": 3}, "nmi": {"bins": 8}}.get(similarity, {})
    method = refine(network(name), **given)
    images = [as_tensor(volume) for volume in pairs[0]]
    flow = method.start.predict(method.start.module, *images).detach()
    displacement = method.start.displacement(flow, images[0])
    expected = {
        "mse": lambda *pair: losses.mse(*pair),
        "lncc": lambda *pair: losses.lncc(*pair, 3, "ants"),
        "nmi": lambda *pair: losses.nmi(*pair, 8, fixed_range=(0, 1), warped_range=(0, 1)),
        "mind": losses.mind_ssc,
    }[similarity](images[0], warp(images[1], displacement)) + 0.3 * losses.diffusion(displacement)
    seen = [loss.item() for loss, _ in method.descent(flow, *images)]
    assert seen[0] == pytest.approx(expected.item(), rel=1e-6) and len(seen) == 16
    assert seen[-1] < seen[0]


def test_more_smoothness_gives_a_smoother_field(pairs):
    start = network("synthmorph")
    fields = [refine(start, **{"lambda": weight, "iterations": 40}).register(*pairs[0]).field for weight in (0.05, 5)]
    rough, smooth = (losses.diffusion(field.displacement).item() for field in fields)
    assert smooth < 0.5 * rough


def test_the_field_of_a_network_without_image_loss_does_not_fold(pairs):
    """Although the two images have nothing in common, with the settings by default."""
    method = make_method("refine")
    method.start_from(network("synthmorph"))
    for pair in pairs:
        found = method.register(*pair)
        assert found.field.displacement.abs().max() > 1
        assert folds(found.field.displacement) == folds(found.inverse.displacement) == 0


@pytest.mark.parametrize("name", ["voxelmorph", "synthmorph"])
def test_a_descent_that_diverges_ends_no_worse_than_it_began(name, pairs):
    method = refine(network(name), step=1000, iterations=5, similarity="mse")
    images = [as_tensor(volume) for volume in pairs[0]]
    flow = method.start.predict(method.start.module, *images).detach()
    seen = list(method.descent(flow, *images))
    assert seen[-1][0] > seen[0][0]
    lowest = min(seen, key=lambda one: one[0].item())[1]
    assert torch.equal(method.refined(flow, *images), lowest)


def test_settings_of_a_similarity_need_one(pairs):
    for key in ("lambda", "window", "bins"):
        method = make_method("refine", {key: 7, "start": "x"}, "mine")
        with pytest.raises(
            InputError, match=f"mine: '{key}' has no effect on the network's own loss; set 'similarity'"
        ):
            method.start_from(network())
        method.start_from(network("synthmorph"))
        assert method.settings.value(key) == 7
        make_method("refine", {key: 7, "similarity": "lncc"}).start_from(network())


def test_fewer_iterations_are_enough_with_a_similarity():
    found = {}
    for name, start, given in [
        ("own loss", network(), {}),
        ("own similarity", network(), {"similarity": "mse"}),
        ("labels", network("synthmorph"), {}),
        ("chosen", network("synthmorph"), {"iterations": 100}),
    ]:
        method = make_method("refine", given)
        method.start_from(start)
        found[name] = method.settings.iterations
    assert found == {"own loss": 100, "own similarity": ENOUGH, "labels": ENOUGH, "chosen": 100}


def test_settings_of_one_network_do_not_stay_for_another(pairs):
    method = make_method("refine")
    first, second = network("synthmorph"), network()
    method.start_from(first)
    method.start_from(second)
    expected = refine(second, iterations=100, step=0.1)
    assert method.settings.similarity is None and "lambda" not in method.settings.as_dict()
    found = [one.register(*pairs[0]).field.displacement for one in (method, expected)]
    assert torch.equal(*found)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"similarity": "ncc"}, "'ncc' is not possible; did you mean 'lncc'"),
        ({"similarity": "lncc", "window": 1}, "window"),
        ({"similarity": "mse", "lambda": -1}, "lambda"),
        ({"lamda": 1}, "unknown key 'lamda'; did you mean 'lambda'"),
    ],
)
def test_settings_that_cannot_be_are_explained(given, words):
    with pytest.raises(InputError, match=words):
        make_method("refine", given)


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


def test_a_study_refines_networks_that_look_at_labels_alone():
    mine = {"sm": {"method": "synthmorph"}, "vm": {"method": "voxelmorph", "gamma": "infinity"}}
    plan = study(**mine, **{f"{name}-on": {"method": "refine", "start": name} for name in mine})
    assert [plan.entries[f"{name}-on"].model for name in mine] == list(mine)


def test_a_study_refines_a_released_model_and_the_folder_of_one(pairs):
    folder = named_model("synthmorph-2d")
    starts = {"named": "synthmorph-2d", "folder": str(folder)}
    own = {"method": "refine", "iterations": 2, "similarity": "mse"}
    plan = study(**{name: {**own, "start": start} for name, start in starts.items()})
    fields = []
    for name, start in starts.items():
        entry = plan.entries[name]
        assert (entry.model, entry.model_folder) == (None, folder)
        method = method_to_register(plan, name, entry.model_folder)
        assert method.settings.start == start and method.settings.lambda_ == LAMBDA["mse"]
        fields.append(method.register(*pairs[0]).field.displacement)
    assert torch.equal(*fields)
    alone = make_method("pretrained", {"model": "synthmorph-2d"}).register(*pairs[0]).field.displacement
    assert not torch.equal(fields[0], alone)


def test_a_model_that_a_study_refines_has_the_studys_dimension():
    with pytest.raises(InputError, match=r"methods\.better\.start: a 3-D model cannot register 2-D images"):
        study(better={"method": "refine", "start": "synthmorph-3d"})


def test_a_study_checks_the_settings_of_a_descent_against_its_network():
    with pytest.raises(InputError, match=r"methods\.better: 'lambda' has no effect on the network's own loss"):
        study(mine={"method": "voxelmorph"}, better={"method": "refine", "start": "mine", "lambda": 1})


@pytest.mark.parametrize(
    ("start", "words"),
    [
        ("voxelmorf", "not 'voxelmorf'; did you mean 'voxelmorph'?"),
        ("synthmorph-2", "not 'synthmorph-2'; did you mean 'synthmorph-2d'?"),
        ("syn", "must be a learned method of the study or a trained model, not 'syn'"),
        ("better", "must be a learned method of the study or a trained model, not 'better'"),
        (None, "or a trained model, not None; known are: synthmorph-2d, synthmorph-3d, voxelmorph"),
    ],
)
def test_a_study_cannot_refine_what_it_does_not_train(start, words):
    with pytest.raises(InputError, match=r"methods\.better: ") as caught:
        study(voxelmorph=None, syn=None, better={"method": "refine", "start": start})
    assert words in str(caught.value)


def test_a_study_that_trains_nothing_refines_what_is_released():
    with pytest.raises(InputError, match=r"not 'voxelmorph'; known are: synthmorph-2d, synthmorph-3d$"):
        study(better={"method": "refine", "start": "voxelmorph"})
