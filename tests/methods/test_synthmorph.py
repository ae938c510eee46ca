"""SynthMorph as a method: what it draws, its losses, and that it learns to align what it never saw."""

import numpy as np
import pytest
import torch

from regcore.cohort.labels import classes_by_size
from regcore.errors import InputError
from regcore.losses import diffusion, soft_dice
from regcore.methods import make_method
from regcore.spatial import identity, sample, warp

SMALL = {"J": 6, "r_p": 8, "b_p": 10, "r_v": [8], "b_v": 1, "shape_maps": 3}


def synthmorph(**settings):
    return make_method("synthmorph", SMALL | settings)


def images(size=1, shape=(32, 48)):
    return {side: torch.zeros(size, 1, *shape) for side in ("fixed", "moving")}


def with_maps(size=1, shape=(32, 48)):
    """A batch of label maps: blocks of 12 by 12 voxels, 1 to 8, in another order in every map."""
    batch = images(size, shape)
    generator = torch.Generator().manual_seed(0)
    for side in ("fixed", "moving"):
        blocks = torch.randint(1, 9, (size, 1, *(n // 12 + 1 for n in shape)), generator=generator, dtype=torch.int16)
        whole = blocks.repeat_interleave(12, 2).repeat_interleave(12, 3)
        batch[f"{side}_labels"] = whole[..., : shape[0], : shape[1]].contiguous()
    return {**batch, "codes": list(range(1, 9))}


def drawn(method, batch, seed=0):
    torch.manual_seed(seed)
    return method.synthesised(batch)


def test_a_pair_of_shapes_has_one_map_and_two_contrasts():
    found = drawn(synthmorph(b_v=0, flips=False), images(2))
    assert found["fixed"].shape == found["moving"].shape == (2, 1, 32, 48)
    assert torch.equal(found["fixed_labels"], found["moving_labels"])
    assert not torch.equal(found["fixed"], found["moving"])
    assert found["codes"] == list(range(6))


def test_training_has_as_many_maps_of_shapes_as_it_shall():
    method = synthmorph(b_v=0, flips=False)
    maps = {drawn(method, images(), seed)["fixed_labels"].numpy().tobytes() for seed in range(30)}
    assert len(maps) == 3


def test_maps_of_shapes_can_be_smaller_than_images():
    method = synthmorph(shape_voxels=16, loss="displacement")
    found = drawn(method, images(shape=(32, 48)))
    assert {found[name].shape[2:] for name in ("fixed", "moving_labels", "displacement")} == {(16, 16)}
    loss = method.losses(method.predict(method.build(2), found["fixed"], found["moving"]), found)["total"]
    assert torch.isfinite(loss)


def test_what_is_drawn_follows_torchs_seed():
    method = synthmorph()
    first, again, other = (drawn(method, images(), seed) for seed in (1, 1, 2))
    assert torch.equal(first["moving"], again["moving"]) and not torch.equal(first["moving"], other["moving"])
    assert torch.equal(drawn(synthmorph(), images(), 1)["moving"], first["moving"]), "whatever was drawn before"


def test_a_pair_of_the_cohorts_maps_has_both():
    batch = with_maps(2)
    found = drawn(synthmorph(maps="cohort", b_v=0, flips=False, loss_labels=5), batch)
    for side in ("fixed", "moving"):
        assert torch.equal(found[f"{side}_labels"], batch[f"{side}_labels"])
        assert found[side].max() == 1 and found[side].min() == 0
    assert found["codes"] == [1, 2, 3, 4, 5], "the largest"


def test_images_of_training_scans_are_not_looked_at():
    batch, method = with_maps(), synthmorph(maps="cohort")
    bright = batch | {side: torch.full_like(batch[side], 7) for side in ("fixed", "moving")}
    assert torch.equal(drawn(method, batch)["fixed"], drawn(method, bright)["fixed"])


@pytest.mark.parametrize("maps", ["shapes", "cohort"])
def test_published_ranges(maps):
    chosen = make_method("synthmorph", {"maps": maps}).settings
    assert (chosen.r_v, chosen.b_v) == {"shapes": ([8, 16, 32], 3), "cohort": ([16], 0.5)}[maps]
    table = {"J": 26, "r_p": 32, "b_p": 100, "a_mu": 25, "b_mu": 225, "a_sigma": 5, "b_sigma": 25}
    table |= {"r_B": 40, "b_B": 0.3, "b_K": 1, "sigma_gamma": 0.25, "lambda": 1, "integration_steps": 5}
    assert {name: chosen.value(name) for name in table} == table
    supervised = make_method("synthmorph", {"maps": maps, "loss": "svf"}).settings
    assert (supervised.r_v, supervised.b_v) == ([8, 16, 32], 3), "as for shapes, one map serves both sides"


def test_the_loss_is_overlap_and_smoothness_of_the_displacement():
    method = synthmorph(**{"lambda": 0.3})
    batch = drawn(method, images())
    flow = 0.5 * torch.randn(1, 2, 16, 24, generator=torch.Generator().manual_seed(1))
    displacement, _ = method.displacements(flow, batch["fixed"])
    expected = soft_dice(batch["fixed_labels"], batch["moving_labels"], displacement, range(6))
    expected = expected + 0.3 * diffusion(displacement)
    assert method.losses(flow, batch)["total"].item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("shape", [(48, 64), (24, 32, 28)])
def test_the_true_displacement_brings_the_moving_labels_onto_the_fixed(shape):
    method = synthmorph(loss="displacement", b_v=2, flips=False)
    batch = drawn(method, images(shape=shape))
    truth = batch["displacement"]
    moved = warp(batch["moving_labels"], truth, mode="nearest")
    inside = sample(torch.ones(1, 1, *shape), identity(shape, truth) + truth) == 1
    at_rest = (batch["moving_labels"] == batch["fixed_labels"])[inside].float().mean()
    brought = (moved == batch["fixed_labels"])[inside].float().mean()
    assert brought > 0.9 and 1 - brought < 0.3 * (1 - at_rest)


def test_the_true_velocity_is_the_displacements_to_first_order():
    method = synthmorph(loss="svf", b_v=0.2, flips=False)
    batch = drawn(method, images())
    found = method.displacement(batch["velocity"], batch["fixed"])
    error = (found - batch["displacement"]).abs().max()
    assert error < 0.1 * batch["displacement"].abs().max()
    losses = method.losses(batch["velocity"], batch)
    assert losses["svf"] == 0 and losses["total"].item() == pytest.approx(losses["diffusion"].item())


def test_supervised_training_pads_as_prediction_does():
    method = synthmorph(loss="svf")
    module = method.build(2)
    losses = method.training_step(module, images(shape=(30, 44)))
    losses["total"].backward()
    assert torch.isfinite(losses["svf"])


def test_the_symmetric_option_swaps_the_sign_with_the_images():
    torch.manual_seed(0)
    method = synthmorph(symmetric=True, width=1)
    module = method.build(2)
    torch.nn.init.normal_(module.head.convolution.weight, std=0.1)
    first, second = torch.rand(2, 1, 1, 32, 48)
    with torch.inference_mode():
        forward, backward = method.predict(module, first, second), method.predict(module, second, first)
    assert forward.abs().max() > 0.01
    torch.testing.assert_close(forward, -backward)


def test_labels_are_numbered_by_their_size():
    maps = [np.array([[9, 9, 4], [0, 4, 4]]), np.array([[4, 2, 2], [0, 0, 2]])]
    assert classes_by_size(maps, "x") == {4: 1, 2: 2, 9: 3}


@pytest.mark.parametrize("maps", [[np.zeros((3, 3), int)], [np.ones((3, 3), int)]])
def test_a_map_of_a_single_label_makes_no_images(maps):
    with pytest.raises(InputError, match=r"methods.sm: .* two labels or more"):
        classes_by_size(maps, "methods.sm")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"a_mu": 230}, "'a_mu: 230' is above 'b_mu: 225'"),
        ({"a_sigma": 30}, "'a_sigma: 30' is above 'b_sigma: 25'"),
        ({"symmetric": True, "passes": 2}, "'symmetric' works with one pass; set 'passes: 1'"),
        ({"loss": "svf", "architecture": "paper", "flow_resolution": 1}, "set 'flow_resolution: 2'"),
        ({"select": "loss"}, "set 'select: dice'"),
        ({"J": 300}, "J"),
        ({"maps": "brains"}, "maps"),
        ({"maps": "cohort", "shape_voxels": 32}, "'shape_voxels' is the size of shapes"),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(InputError, match=message):
        synthmorph(**settings)


def test_the_loss_leads_to_alignment():
    """Followed by a free velocity, on one pair."""
    method = synthmorph(**{"J": 6, "r_p": 16, "b_v": 3, "r_v": [16], "flips": False, "lambda": 0.05})
    batch = drawn(method, images(shape=(48, 64)))
    flow = torch.zeros(1, 2, 24, 32, requires_grad=True)
    optimiser = torch.optim.Adam([flow], lr=0.1)
    found = []
    for _ in range(80):
        optimiser.zero_grad()
        losses = method.losses(flow, batch)
        losses["total"].backward()
        optimiser.step()
        found.append(float(losses["label_dice"].detach()))
    assert found[-1] < 0.5 * found[0]


# ---- descriptors instead of images


@pytest.mark.parametrize("shape", [(30, 41), (18, 20, 23)], ids=["2-D", "3-D"])
def test_a_network_of_descriptors_predicts_the_same_in_inverted_and_stretched_contrasts(shape):
    torch.manual_seed(0)
    method = synthmorph(input="mind", width=0.125)
    module = method.build(len(shape)).eval()
    torch.nn.init.normal_(module.head.convolution.weight)
    fixed, moving = torch.rand(2, 1, 1, *shape)
    with torch.inference_mode():
        flow = method.predict(module, fixed, moving)
        recoloured = method.predict(module, 1 - 0.5 * fixed, 0.2 + 0.7 * moving)
        swapped = method.predict(module, moving, fixed)
    torch.testing.assert_close(recoloured, flow, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(swapped, flow, atol=0.1)


def test_the_channels_of_descriptors_are_those_that_the_network_takes():
    for shape in ((16, 32), (16, 16, 32)):
        method = synthmorph(input="mind", width=0.125)
        seen = method.network_input(*torch.rand(2, 1, 1, *shape))
        assert seen.shape[1] == method.build(len(shape)).unet.down[0].in_channels == {2: 8, 3: 24}[len(shape)]


def test_training_reaches_every_weight_of_a_network_of_descriptors():
    method = synthmorph(input="mind", width=0.125)
    module = method.build(2)
    torch.manual_seed(0)
    method.training_step(module, images())["total"].backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


# ---- several passes


class HalfWay(torch.nn.Module):
    """Finds half of the shift between the centres of two spots; counts how often it is asked, with gradients or not."""

    def __init__(self):
        super().__init__()
        self.share = torch.nn.Parameter(torch.tensor(0.5))
        self.asked = {True: 0, False: 0}

    def forward(self, pair):
        self.asked[torch.is_grad_enabled()] += 1
        axes = torch.stack(torch.meshgrid(*(torch.arange(n) + 0.0 for n in pair.shape[2:]), indexing="ij"))
        moving, fixed = ((axes * image).sum((1, 2)) / image.sum() for image in pair[0])
        voxels = torch.tensor([(n - 1) / (n // 2 - 1) for n in pair.shape[2:]])  # of the grid half as fine
        velocity = self.share * (moving - fixed) / voxels
        return velocity.view(1, 2, 1, 1).expand(1, 2, *(n // 2 for n in pair.shape[2:]))


def spot(centre, shape=(64, 48)):
    grid = torch.meshgrid(*(torch.arange(n) + 0.0 for n in shape), indexing="ij")
    return torch.exp(-sum((x - c) ** 2 for x, c in zip(grid, centre, strict=True)) / 18)[None, None]


@pytest.mark.parametrize("passes", [1, 2, 4])
def test_every_pass_finds_what_the_passes_before_have_left(passes):
    method, fixed, moving = synthmorph(passes=passes), spot((30, 20)), spot((38, 26))
    with torch.no_grad():
        found = method.displacement(method.predict(HalfWay(), fixed, moving), fixed)[0, :, 30, 20]
    expected = torch.tensor([8.0, 6.0]) * (1 - 0.5**passes)
    torch.testing.assert_close(found, expected, atol=0.05, rtol=0)


def test_training_draws_how_many_passes_there_are_and_learns_the_last():
    method, module = synthmorph(passes=3), HalfWay()
    torch.manual_seed(0)
    counts = []
    for _ in range(40):
        module.asked = {True: 0, False: 0}
        flow = method.predict_in_training(module, spot((30, 20)), spot((38, 26)))
        assert module.asked[True] == 1
        counts.append(module.asked[False])
        expected = 8 * 31 / 63 * (1 - 0.5 ** (counts[-1] + 1))
        torch.testing.assert_close(flow[0, 0].mean().detach(), torch.tensor(expected), atol=0.05, rtol=0)
    assert set(counts) == {0, 1, 2}
    module.share.grad = None
    flow[0, 0].mean().backward()
    assert module.share.grad > 0


def test_a_single_pass_draws_nothing():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    synthmorph().predict_in_training(HalfWay(), spot((30, 20)), spot((38, 26)))
    assert torch.equal(before, torch.get_rng_state())


def test_displacements_are_not_added():
    with pytest.raises(InputError, match="'passes: 2' needs velocities; set 'flow: velocity'"):
        make_method("voxelmorph", {"passes": 2, "flow": "displacement"})
