"""HyperMorph as a method: its losses, what it draws, and the values that it registers with."""

import math

import pytest
import torch

from regcore.errors import InputError
from regcore.losses import diffusion, lncc, mse, soft_dice
from regcore.methods import make_method
from regcore.methods.hypermorph import interpolated_lncc
from regcore.spatial import integrate, warp

SMALL = {"hidden": [8], "integration_steps": 3, "flow_resolution": 2, "architecture": "paper-diff"}


def hypermorph(**settings):
    return make_method("hypermorph", SMALL | settings)


def batch(size=2, labels=False):
    generator = torch.Generator().manual_seed(0)
    found = {side: torch.rand(size, 1, 32, 32, generator=generator) for side in ("fixed", "moving")}
    if labels:
        for side in ("fixed", "moving"):
            found[f"{side}_labels"] = torch.randint(3, (size, 1, 32, 32), generator=generator, dtype=torch.int16)
        found["codes"] = [1, 2]
    return found


def small_flow(size=1):
    return 0.3 * torch.randn(size, 2, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("amount", [0, 0.25, 1])
@pytest.mark.parametrize("gamma", [0, 0.4, 1])
def test_the_loss_is_equation_3(amount, gamma):
    """Written out for a velocity at half resolution."""
    method = make_method(
        "voxelmorph",
        {"weighting": "convex", "lambda": amount, "gamma": gamma, "image_sigma": 0.05, "integration_steps": 3},
    )
    data, flow = batch(1, labels=True), small_flow()
    displacement, _ = method.displacements(flow, data["fixed"])
    similar = mse(data["fixed"], warp(data["moving"], displacement)) * 400
    overlap = soft_dice(data["fixed_labels"], data["moving_labels"], displacement, [1, 2])
    expected = (1 - amount) * (1 - gamma) * similar + amount * diffusion(flow) + (1 - amount) * gamma * overlap
    assert method.losses(flow, data)["total"].item() == pytest.approx(expected.item(), rel=1e-5)
    without = {name: data[name] for name in ("fixed", "moving")}
    expected = (1 - amount) * similar + amount * diffusion(flow)
    assert method.losses(flow, without)["total"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_plain_sum_is_as_it_was():
    method = make_method("voxelmorph", {"lambda": 0.3, "gamma": 0.2, "integration_steps": 3})
    data, flow = batch(1, labels=True), small_flow()
    displacement, _ = method.displacements(flow, data["fixed"])
    expected = mse(data["fixed"], warp(data["moving"], displacement)) + 0.3 * diffusion(flow)
    expected = expected + 0.2 * soft_dice(data["fixed_labels"], data["moving_labels"], displacement, [1, 2])
    assert method.losses(flow, data)["total"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_each_pair_of_a_step_has_the_loss_of_its_own_hyperparameters():
    method = hypermorph(prior={"lambda": [0, 1], "gamma": [0.2, 0.8]}, similarity="mse")
    torch.manual_seed(3)
    module, data = method.build(2), batch(3, labels=True)
    torch.manual_seed(4)
    found = method.training_step(module, data)
    torch.manual_seed(4)
    drawn = method.draw(3)
    assert len({tuple(row) for row in drawn.tolist()}) == 3
    totals = []
    for n, row in enumerate(drawn):
        one = {k: v[n : n + 1] if isinstance(v, torch.Tensor) else v for k, v in data.items()}
        at = {"lambda": row[0].item(), "gamma": 0.2 + 0.6 * row[1].item()}
        plain = make_method(
            "voxelmorph",
            {key: method.settings.value(key) for key in ("architecture", "integration_steps", "image_sigma")}
            | {"weighting": "convex"}
            | at,
        )
        flow = method.at(at).predict(module, one["fixed"], one["moving"])
        totals.append(plain.losses(flow, one)["total"])
    assert found["total"].item() == pytest.approx(torch.stack(totals).mean().item(), rel=1e-4)
    assert method.observed == "all" and hypermorph().observed is None


def test_what_is_drawn_is_uniform_with_more_of_the_ends():
    method = hypermorph(prior={"lambda": [0, 1], "gamma": [0, 1]}, end_points=0.3)
    torch.manual_seed(0)
    drawn = method.draw(20000)
    for column in drawn.T:
        ends = (column == 0) | (column == 1)
        assert ends.float().mean().item() == pytest.approx(0.3, abs=0.02)
        assert (column == 1).float().mean().item() == pytest.approx(0.15, abs=0.02)
        inner = column[~ends].sort().values
        line = torch.linspace(0, 1, len(inner))
        assert (inner - line).abs().max() < 0.02  # Kolmogorov–Smirnov
    assert abs(torch.corrcoef(drawn.T)[0, 1]) < 0.03
    paper = hypermorph(preset="paper").draw(1000)
    assert not ((paper == 0) | (paper == 1)).any()


def test_a_window_between_odd_sizes_is_interpolated():
    data = batch(1)
    fixed, moving = data["fixed"], data["moving"]
    at = {size: lncc(fixed, moving, size, "voxelmorph").item() for size in (5, 7)}
    assert interpolated_lncc(fixed, moving, 5).item() == pytest.approx(at[5], rel=1e-6)
    assert interpolated_lncc(fixed, moving, 7).item() == pytest.approx(at[7], rel=1e-6)
    assert interpolated_lncc(fixed, moving, 6.5).item() == pytest.approx(0.25 * at[5] + 0.75 * at[7], rel=1e-6)
    method = hypermorph(similarity="lncc", prior={"lambda": [0, 1], "window": [3, 15]}).at(
        {"lambda": 0.5, "window": 6.5}
    )
    flow = torch.zeros(1, 2, 16, 16)
    assert method.losses(flow, data)["lncc"].item() == pytest.approx(0.25 * at[5] + 0.75 * at[7], rel=1e-5)


def test_values_become_inputs_between_0_and_1_and_back():
    method = hypermorph(similarity="lncc", prior={"lambda": [0, 1], "window": [3, 15]})
    row = method.inputs({"window": 6, "lambda": 0.5})
    torch.testing.assert_close(row, torch.tensor([[0.5, 0.25]]))
    assert method.values_of(row[0]) == {"lambda": 0.5, "window": 6}


def test_another_lambda_gives_another_field_of_the_same_network():
    method = hypermorph()
    torch.manual_seed(0)
    method.module = method.build(2)
    torch.nn.init.normal_(method.module.weights.weight, std=0.1)
    data = batch(1)
    flows = [method.at({"lambda": v}).predict(method.module, data["fixed"], data["moving"]) for v in (0.1, 0.9, 0.1)]
    assert not torch.allclose(flows[0], flows[1]) and torch.equal(flows[0], flows[2])
    assert method.values == {"lambda": None}, "the method itself stays as it was"


def test_a_look_covers_the_range_until_a_value_is_chosen():
    assert [m.values["lambda"] for m in hypermorph().variants_to_validate()] == pytest.approx([0.1, 0.3, 0.5, 0.7, 0.9])
    two = hypermorph(prior={"lambda": [0, 1], "gamma": [0, 1]}).variants_to_validate()
    assert sorted({m.values["gamma"] for m in two}) == pytest.approx([1 / 6, 1 / 2, 5 / 6], abs=1e-6) and len(two) == 9
    chosen = hypermorph(**{"lambda": 0.3})
    assert chosen.variants_to_validate() == [chosen]


def test_the_presets():
    paper, code = hypermorph(preset="paper", hidden=[64] * 4), make_method("hypermorph", {"preset": "code"})
    assert paper.settings.final == "tanh" and paper.settings.end_points == 0
    assert code.settings.hidden == [128] * 6 and code.settings.final == "relu"
    assert code.settings.generated == ["unet"] and code.settings.end_points == 0.2
    assert math.isclose(1 / code.settings.image_sigma**2, 400)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"prior": {"lamda": [0, 1]}}, "no hyperparameter 'lamda'; did you mean 'lambda'"),
        ({"prior": {"lambda": [0, 2]}}, r"lambda: \[0, 2\] must ascend within \[0, 1\]"),
        ({"prior": {"lambda": [1, 0]}}, "must ascend"),
        ({"prior": {"window": [3, 9]}, "lambda": 0.2}, "'mse' has no window; set 'similarity: lncc'"),
        ({"prior": {"gamma": [0, 1]}}, "set 'lambda', or give its range in 'prior'"),
        ({"prior": {}}, "prior"),
        ({"lambda": 1.5}, "1.5"),
        ({"prior": {"lambda": [0.2, 0.8]}, "lambda": 0.1}, r"lambda = 0.1 lies outside \[0.2, 0.8\]"),
        ({"hidden": []}, "hidden"),
        ({"weighting": "sum"}, "'sum' is not possible"),
        ({"similarity": "lncc", "window": 7.5}, "'window: 7.5' must be whole, or have a range in 'prior'"),
        ({"generated": ["decoder"]}, "'generated': the network has no part 'decoder' with weights; it has unet, head"),
    ],
)
def test_settings_that_cannot_be(settings, complaint):
    with pytest.raises(InputError, match=complaint):
        hypermorph(**settings)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"lambda": 1.2}, r"lambda = 1.2 lies outside \[0, 1\]"),
        ({"lambda": -0.1}, "lies outside"),
        ({"gamma": 0.1}, "no hyperparameter 'gamma'"),
        ({"lamda": 0.1}, "did you mean 'lambda'"),
    ],
)
def test_values_that_the_model_has_not_met(values, complaint):
    with pytest.raises(InputError, match=complaint):
        hypermorph().at(values)


def test_with_gamma_as_hyperparameter_training_sees_labels_whatever_its_value():
    for value in (0, None, 0.4):
        assert hypermorph(prior={"lambda": [0, 1], "gamma": [0, 1]}, gamma=value).observed == "all"


def test_values_stay_in_their_range_when_they_are_rounded():
    method = hypermorph(prior={"lambda": [0.1234564, 0.9]})
    at = method.values_of(torch.tensor([0.0]))
    assert method.at(at).values["lambda"] == 0.1234564


def test_the_codes_smoothness_counts_twice():
    data, flow = batch(1), small_flow()
    code, paper = (hypermorph(preset=p, **{"lambda": 0.4}).losses(flow, data) for p in ("code", "paper"))
    assert (code["total"] - paper["total"]).item() == pytest.approx(0.4 * paper["diffusion"].item(), rel=1e-4)


def test_without_a_value_nothing_is_registered():
    method, data = hypermorph(), batch(1)
    with pytest.raises(InputError, match="no value is chosen for lambda"):
        method.predict(method.build(2), data["fixed"], data["moving"])


@pytest.mark.parametrize("values", [{"lambda": 1.2}, {"gamma": 1.5}, {"gamma": "infinity"}])
def test_convex_weights_lie_between_0_and_1(values):
    with pytest.raises(InputError, match=r"must lie in \[0, 1\] with 'weighting: convex'"):
        make_method("voxelmorph", {"weighting": "convex", "lambda": 0.5} | values)


def test_a_convex_sum_has_no_published_lambda():
    with pytest.raises(InputError, match="set 'lambda'"):
        make_method("voxelmorph", {"weighting": "convex"})


def test_the_image_noise_divides_mean_squares():
    data, flow = batch(1), torch.zeros(1, 2, 16, 16)
    plain, scaled = (
        make_method("voxelmorph", {"lambda": 0.1, "image_sigma": sigma}).losses(flow, data)["mse"] for sigma in (1, 0.1)
    )
    assert scaled.item() == pytest.approx(100 * plain.item(), rel=1e-5)
    assert integrate(flow, 3).abs().max() == 0
