"""AutoReg's objective and networks as a method, and the search for both."""

import json
import math
import re

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import chi2_contingency
from support.cells import MEDIUM, awake, drawn
from support.checkpoints import save_by_hand
from support.marks import marks_its_tests
from support.models import write_model_json
from support.studies import prepared, small_study
from torch import nn

from regcore.autoreg import bilevel as architecture
from regcore.autoreg import path_search as paths
from regcore.autoreg.bilevel import Objective, Problem, Schedule, Stage
from regcore.autoreg.hypergradient import hypergradient
from regcore.autoreg.path_search import SCORING, PathSearch
from regcore.autoreg.search import FACTS, FOUND, TRACE, read_found
from regcore.checks import NotFiniteError
from regcore.errors import DivergedError, InputError
from regcore.losses import diffusion, lncc, mind_ssc, soft_dice
from regcore.methods import METHODS, make_method, settings_type
from regcore.models.trained import load_model
from regcore.networks.architecture import CANDIDATES, DEFORMATION, FEATURE, LAMBDAS, Architecture
from regcore.spatial import integrate, resample, resample_displacement, smooth, warp
from regcore.study.entry import ENTRY_KEYS
from regcore.study.plan import plan_study
from regcore.study.stages import architecture as stage
from regcore.study.stages.architecture import found_values, search_architecture
from regcore.study.stages.train import train

BARE = {"method": "autoreg", "steps": 4, "validate_every": 2, "learning_rate": 0.01}
FAST = {**BARE, "channels": 2}
SHORT = {
    **{"epoch": 2, "warmup": 1, "epochs": 2, "learning_rate": 0.01},
    **{"architecture_rate": 0.1, "objective_rate": 0.1},
}
LAMBDA = {"lambda1": 0.3, "lambda2": 2.0, "lambda3": 0.4, "lambda4": 0.1}


def blob(seed, shape=(16, 16), dtype=torch.float64):
    """A smooth random image."""
    noise = torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    image = smooth(noise, 2.0)
    return (image - image.min()) / (image.max() - image.min())


def pair(seed, **more):
    return {"fixed": blob(2 * seed, **more), "moving": blob(2 * seed + 1, **more)}


# ---- the method


@pytest.mark.parametrize("shape", [(32, 28), (16, 20, 12)], ids=["2-D", "3-D"])
def test_objective_is_that_of_the_paper(shape):
    """Eq. 4 and 5, put together from the losses and the fields at three resolutions."""
    torch.manual_seed(0)
    method, batch, ndim = make_method("autoreg", {"channels": 2, **LAMBDA}), pair(0, shape=shape), len(shape)
    network = awake(method.build(ndim)).double()
    flow = network(method.network_input(batch["fixed"], batch["moving"]))
    found = method.losses(flow, batch)

    def alike(velocity, factor, window):
        space = [n // factor for n in shape]
        coarse = [resample(smooth(batch[side], factor / 2), space) if factor > 1 else batch[side] for side in batch]
        field = integrate(velocity)
        if factor == 1:
            field = resample_displacement(field, shape)
        return lncc(coarse[0], warp(coarse[1], field), window, "voxelmorph"), mind_ssc(
            coarse[0], warp(coarse[1], field)
        )

    fine, coarse = flow[:, :ndim], flow[(slice(None), slice(ndim, None), *[slice(None, None, 2)] * ndim)]
    terms = [alike(fine, 1, 9), alike(fine, 2, 7), alike(coarse, 4, 5)]
    full, half, quarter = (0.3 * ncc + 0.7 * mind for ncc, mind in terms)
    expected = full + 2 * diffusion(fine) + 0.4 * half + 0.1 * quarter
    torch.testing.assert_close(found["total"], expected)
    assert set(found) == {"total", "diffusion", *(n + s for n in ("lncc", "mind") for s in ("", "_half", "_quarter"))}


@pytest.mark.parametrize(
    ("weights", "left"),
    [
        ({"lambda1": 1, "lambda3": 0, "lambda4": 0}, {"lncc"}),
        ({"lambda1": 0, "lambda3": 0}, {"mind", "mind_quarter"}),
        ({"lambda1": 1, "lambda4": 0}, {"lncc", "lncc_half"}),
    ],
)
def test_what_has_no_weight_is_not_computed(weights, left):
    method = make_method("autoreg", {"channels": 2, **LAMBDA, **weights})
    network = method.build(2)
    assert set(method.training_step(network, pair(0, dtype=torch.float32))) == {"total", "diffusion", *left}


def test_weights_may_be_tensors():
    method, batch = make_method("autoreg", {"channels": 2, **LAMBDA}), pair(0)
    flow = torch.randn(1, 4, 8, 8, dtype=torch.float64)
    tensors = {name: torch.tensor(value, dtype=torch.float64, requires_grad=True) for name, value in LAMBDA.items()}
    total = method.weighed_losses(flow, batch, tensors)["total"]
    torch.testing.assert_close(total, method.losses(flow, batch)["total"])
    slopes = dict(zip(tensors, torch.autograd.grad(total, list(tensors.values())), strict=True))
    torch.testing.assert_close(slopes["lambda2"], diffusion(flow[:, :2]))


def test_a_u_net_has_its_velocity_alone():
    """Its coarser fields are its own, resampled."""
    method, batch = make_method("autoreg", {"network": "unet", **LAMBDA}), pair(0, dtype=torch.float32)
    flow = method.predict(method.build(2), batch["fixed"], batch["moving"])
    assert flow.shape == (1, 2, 8, 8)
    assert "lncc_quarter" in method.losses(flow, batch)
    assert {"architecture", "channels"} <= method.settings.unused


@pytest.mark.slow
def test_it_learns_to_register():
    torch.manual_seed(0)
    method, batch = (
        make_method("autoreg", {"channels": 4, "lambda2": 0.1}),
        pair(0, shape=(32, 32), dtype=torch.float32),
    )
    network = method.build(2)
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    losses = []
    for _ in range(100):
        found = method.training_step(network, batch)
        optimiser.zero_grad()
        found["total"].backward()
        optimiser.step()
        losses.append(found["mind"].item())
    assert losses[-1] < 0.7 * losses[0]


def test_a_pair_is_refined_by_the_whole_objective():
    """Each similarity pulls at the velocity that registers, that at a quarter of the resolution too."""
    torch.manual_seed(0)
    method, batch = make_method("autoreg", {"channels": 2, **LAMBDA}), pair(0, dtype=torch.float32)
    network = awake(method.build(2))
    flow = method.refinable(method.predict(network, batch["fixed"], batch["moving"]).detach()).requires_grad_()
    assert flow.shape == (1, 2, 8, 8)
    found = method.losses(flow, batch)
    for name in ("lncc", "lncc_half", "lncc_quarter"):
        (slope,) = torch.autograd.grad(found[name], flow, retain_graph=True)
        assert slope.abs().max() > 0, name
    refine = make_method("refine", {"iterations": 20})
    refine.start_from(method)
    after = method.losses(refine.refined(flow, batch["fixed"], batch["moving"]), batch)
    assert after["total"] < found["total"]


def test_its_settings_hold_the_architecture_itself(tmp_path, generator):
    path = drawn(generator)
    (tmp_path / "mine.json").write_text(json.dumps(path.as_json()))
    assert make_method("autoreg", {"architecture": str(tmp_path / "mine.json")}).settings.architecture == path.as_json()
    large = make_method("autoreg", {"architecture": "manual-large"}).settings.architecture
    assert large == Architecture.uniform("7-Conv").as_json()
    with pytest.raises(InputError, match=r"x\.architecture: the cell 'feature' is missing"):
        make_method("autoreg", {"architecture": {}}, "x")


# ---- hypergradients


def relative_error(found, exact):
    return float((found - exact).norm() / exact.norm())


@pytest.mark.parametrize("keep_length", [False, True])
def test_hypergradient_of_a_toy_problem(keep_length):
    """Inner: cubic in ω, coupled to α; the exact gradient is that of the loss after one step, by autograd."""
    torch.manual_seed(0)
    root, coupling = torch.randn(5, 5, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    weights = torch.randn(5, dtype=torch.float64, requires_grad=True)
    alpha = torch.randn(3, dtype=torch.float64, requires_grad=True)

    def inner(w):
        return 0.5 * (root @ w).square().sum() + 0.1 * w.pow(3).sum() * alpha.exp().sum() - w @ coupling @ alpha

    def outer(w):
        return (w - 1).square().sum() + alpha.square().sum() * w.sum()

    before = weights.detach().clone()
    (found,), loss = hypergradient(
        lambda: inner(weights), lambda: outer(weights), [weights], [alpha], 0.2, 1e-2, keep_length
    )
    (slope,) = torch.autograd.grad(inner(weights), weights, create_graph=True)
    if keep_length:
        slope = slope * (slope.norm().detach() / slope.norm())
    after = outer(weights - 0.2 * slope)
    (exact,) = torch.autograd.grad(after, alpha)
    assert relative_error(found, exact) < 0.005
    assert loss == pytest.approx(after.item()) and torch.equal(weights, before)
    (direct,) = torch.autograd.grad(outer((weights - 0.2 * slope).detach()), alpha)
    assert relative_error(direct, exact) > (0.02 if keep_length else 0.1), "or the test would not see the second term"


def by_differences(value, at, step=1e-6):
    """Gradient of ``value()`` with respect to the tensor ``at``, by central differences."""
    start, found = at.detach().clone(), torch.zeros_like(at)
    for place in range(at.numel()):
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                at.copy_(start).view(-1)[place] += sign * step
            ends.append(value())
        found.view(-1)[place] = (ends[0] - ends[1]) / (2 * step)
    with torch.no_grad():
        at.copy_(start)
    return found


def one_step_ahead(inner, outer, weights, rate):
    """The outer loss after one step of the weights, which come back."""
    start = [weight.detach().clone() for weight in weights]
    slopes = torch.autograd.grad(inner(), weights, allow_unused=True)
    with torch.no_grad():
        for weight, slope in zip(weights, slopes, strict=True):
            if slope is not None:
                weight -= rate * slope
        loss = outer().item()
        for weight, value in zip(weights, start, strict=True):
            weight.copy_(value)
    return loss


@pytest.mark.slow
@pytest.mark.parametrize("searched", [FEATURE, DEFORMATION, "objective"])
def test_hypergradient_of_a_network(searched):
    """In float64, beside the loss after one step at moved α or λ.

    ε is small here: a network is smooth in pieces alone (LeakyReLU, the minimum in MIND), and a difference of gradients
    across a kink is not a derivative.
    """
    torch.manual_seed(0)
    method, batches = make_method("autoreg", {"channels": 2, "integration_steps": 3, **LAMBDA}), [pair(0), pair(1)]
    kinds = () if searched == "objective" else (searched,)
    network = awake(method.super_network(2, kinds)).double()
    objective = Objective(LAMBDA).double()
    for mixture in network.mixtures.values():
        nn.init.normal_(mixture)
    labels = [torch.randint(3, (1, 1, 16, 16), generator=torch.Generator().manual_seed(n)) for n in range(2)]

    def flow(batch):
        return network(method.network_input(batch["fixed"], batch["moving"]))

    def inner():
        return method.weighed_losses(flow(batches[0]), batches[0], objective.weights())["total"]

    def outer():
        if searched != "objective":
            return method.losses(flow(batches[1]), batches[1])["total"]
        return soft_dice(*labels, method.displacement(flow(batches[1]), batches[1]["fixed"]), [1, 2])

    weights, rate = network.weights(), 0.05
    at = objective.free if searched == "objective" else network.mixtures[searched]
    (found,), _ = hypergradient(inner, outer, weights, [at], rate, 1e-8)
    exact = by_differences(lambda: one_step_ahead(inner, outer, weights, rate), at)
    assert relative_error(found, exact) < 0.01
    if searched != "objective":  # λ has no other part
        (direct,) = torch.autograd.grad(outer(), at)
        assert relative_error(direct, exact) > 0.02, "or the test would not see the second term"


def test_a_step_of_given_length_does_not_see_the_scale_of_the_loss():
    """What λ multiplies is not better for being larger; only a plain step gets longer by it."""
    weights = torch.tensor([1.0, -2, 0.5], dtype=torch.float64, requires_grad=True)
    idle = torch.zeros(2, dtype=torch.float64, requires_grad=True)  # of which the outer loss knows nothing
    scale = torch.tensor([2.0], dtype=torch.float64, requires_grad=True)

    def inner():
        return scale * (weights.pow(4).sum() + (idle * weights[:2]).sum())

    def outer():
        return weights.square().sum()

    for keep_length in (False, True):
        (slope,), _ = hypergradient(inner, outer, [weights, idle], [scale], 0.01, 1e-4, keep_length)
        assert (abs(slope.item()) < 1e-6) == keep_length


# ---- λ


def test_weights_of_the_objective_stay_valid():
    objective = Objective(LAMBDA)
    assert objective.values() == pytest.approx(LAMBDA)
    with torch.no_grad():
        objective.free += torch.tensor([40.0, -30, 30, -30])
    found = objective.values()
    assert 0 <= found["lambda1"] <= 1 and all(found[name] > 0 for name in LAMBDAS[1:])


@pytest.mark.parametrize(("name", "value"), [("lambda1", 0.0), ("lambda1", 1.0), ("lambda3", 0.0)])
def test_search_of_weights_cannot_begin_at_their_bounds(name, value):
    with pytest.raises(ValueError, match=r"must start with λ1 in \(0, 1\) and the others above 0"):
        Objective({**LAMBDA, name: value})


# ---- a stage


class Toy(nn.Module):
    """Outer loss: α shall bring ω, which follows it, to 1."""

    def __init__(self):
        super().__init__()
        self.omega, self.alpha = nn.Parameter(torch.zeros(3)), nn.ParameterDict({"a": torch.zeros(3)})


def toy_stage(folder, fail_at=None, fingerprint="same", tolerance=0.0, **changes):
    toy = Toy()

    def inner(step):
        if step == fail_at:
            raise KeyboardInterrupt
        noise = torch.randn(3, generator=torch.Generator().manual_seed(step))
        return (toy.omega - toy.alpha["a"] + 0.01 * noise).square().sum()

    def values():
        return {f"a{place}": value for place, value in enumerate(toy.alpha["a"].tolist())}

    def same(row, other):
        return all(abs(row[f"a{n}"] - other[f"a{n}"]) <= tolerance for n in range(3))

    def outer(step):
        return (toy.omega - 1).square().sum()

    problem = Problem(toy, [toy.omega], toy.alpha, inner, outer, values, same, str)
    usual = {"warmup": 2, "epochs": 6, "epoch": 5, "stable": 2, "epsilon": 0.01}
    schedule = Schedule(**{**usual, "learning_rate": 0.1, "search_rate": 0.1, **changes})
    return Stage("toy", problem, schedule, folder, fingerprint), toy


def test_a_stage_warms_up_and_then_searches(tmp_path):
    run, toy = toy_stage(tmp_path, epochs=60, search_rate=0.02)
    trace = run.run()
    assert [row["a0"] for row in trace.rows[:2]] == [0, 0] and trace.rows[2]["a0"] > 0
    assert all(math.isnan(row["validation_loss"]) == (row["epoch"] <= 2) for row in trace.rows)
    torch.testing.assert_close(toy.omega.detach(), torch.ones(3), atol=0.1, rtol=0)
    assert len(trace.rows) == 62 and not trace.stable


@pytest.mark.parametrize("optimiser", ["adam", "muon"])
@pytest.mark.parametrize("save_every", [1e9, 0], ids=["between epochs", "at every step"])
def test_a_killed_stage_goes_on_as_if_nothing_had_been(tmp_path, monkeypatch, save_every, optimiser):
    monkeypatch.setattr(architecture, "SAVE_EVERY", save_every)
    whole, expected = toy_stage(tmp_path / "whole", optimiser=optimiser)
    rows = whole.run().rows
    with pytest.raises(KeyboardInterrupt):
        toy_stage(tmp_path / "cut", fail_at=27, optimiser=optimiser)[0].run()
    resumed, toy = toy_stage(tmp_path / "cut", optimiser=optimiser)
    resumed._resume()
    assert resumed.trace.step == (27 if save_every == 0 else 25)
    resumed_rows = resumed.run().rows
    assert torch.equal(toy.omega, expected.omega) and torch.equal(toy.alpha["a"], expected.alpha["a"])
    pd.testing.assert_frame_equal(pd.DataFrame(resumed_rows), pd.DataFrame(rows))


def test_a_stage_goes_on_from_a_checkpoint_laid_out_by_hand(tmp_path):
    """The layout of the file is a promise: searches that are half finished outlive an update."""
    whole, expected = toy_stage(tmp_path / "whole")
    whole.run()
    half, toy = toy_stage(tmp_path / "half", fail_at=25)
    with pytest.raises(KeyboardInterrupt):
        half.run()
    tensors = {"model.omega": toy.omega, "model.alpha.a": toy.alpha["a"], "searched.a": toy.alpha["a"].clone()}
    for name, weight in (("weights", toy.omega), ("searched", toy.alpha["a"])):
        for key, value in half.optimisers[name].state[weight].items():
            tensors[f"optimiser.{name}.0.{key}"] = torch.as_tensor(value)
    trace = half.trace
    facts = {
        "fingerprint": "same",
        "rows": trace.rows,
        "step": 25,
        "sums": [0.0, 0.0],
        "seconds": 9.0,
        "cpu_seconds": 8.0,
        "step_bytes": trace.step_bytes,
        "stable": False,
    }
    (tmp_path / "old").mkdir()
    save_by_hand(tmp_path / "old" / "toy.safetensors", tensors, facts)
    resumed, found = toy_stage(tmp_path / "old")
    resumed._resume()
    assert (resumed.trace.step, resumed.trace.seconds) == (25, 9)
    assert resumed.run().cpu_seconds > 8
    assert torch.equal(found.omega, expected.omega) and torch.equal(found.alpha["a"], expected.alpha["a"])


def test_a_stage_of_other_settings_starts_afresh(tmp_path, caplog):
    caplog.set_level("INFO")
    toy_stage(tmp_path)[0].run()
    run, _ = toy_stage(tmp_path, fingerprint="other", epochs=1)
    assert len(run.run().rows) == 3 and "belongs to other settings" in caplog.text


def test_a_stage_that_diverges_says_so(tmp_path):
    """Also on a GPU, where no operator looks for numbers that are not finite."""
    run, toy = toy_stage(tmp_path)
    with torch.no_grad():
        toy.omega.fill_(float("nan"))
    with pytest.raises(DivergedError, match="the search of toy diverged in epoch 1"):
        run.run()


def test_a_stage_ends_when_it_is_stable(tmp_path):
    trace = toy_stage(tmp_path, epochs=30, tolerance=10.0)[0].run()
    assert trace.stable and len(trace.rows) == 2 + 3  # the first epoch that searches, and two that changed nothing


# ---- the control


def path_search(folder, by, cpu_seconds, fail_at=None):
    """Architectures are the better the more 5-DConv they have."""
    torch.manual_seed(0)
    network = make_method("autoreg", {"channels": 1}).super_network(2, (FEATURE,))
    calls = []

    def inner(step, path):
        if step == fail_at:
            raise KeyboardInterrupt
        return sum(weight.square().sum() for weight in network.weights()) * 0.01

    def score(path):
        calls.append(path)
        return float(sum(name != "5-DConv" for _, _, name in path.edges(FEATURE)))

    return PathSearch(network, inner, score, by, cpu_seconds, "adam", 1e-3, 1, folder, "same"), calls


@pytest.mark.slow
@pytest.mark.parametrize("by", ["random", "tpe"])
def test_the_control_takes_its_time_and_the_best_architecture(tmp_path, by):
    search, calls = path_search(tmp_path, by, 1.0)
    tried = search.run()
    assert tried.phase == SCORING and tried.step > 0 and len(tried.trials) == len(calls) > 3
    assert 1.0 <= tried.cpu_seconds < 2.0
    assert min(trial["loss"] for trial in tried.trials) == sum(name != "5-DConv" for name in tried.best)
    assert search.architecture(tried.best).cells[DEFORMATION] == MEDIUM.cells[DEFORMATION]


def test_tpe_learns_from_what_it_tried(tmp_path):
    means = {}
    for by in ("random", "tpe"):
        search, _ = path_search(tmp_path / by, by, 0.0)
        search.tried.phase = SCORING
        for _ in range(60):
            search._try()
        means[by] = np.mean([trial["loss"] for trial in search.tried.trials[30:]])
    assert means["tpe"] < means["random"] - 0.5


def test_a_killed_control_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "SAVE_EVERY", 0.0)
    with pytest.raises(KeyboardInterrupt):
        path_search(tmp_path, "random", 1e9, fail_at=7)[0].run()
    search, _ = path_search(tmp_path, "random", 0.0)
    search._resume()
    assert search.tried.step == 7 and search.tried.cpu_seconds > 0
    whole, _ = path_search(tmp_path / "whole", "random", 0.0)
    for _ in range(7):
        whole._train()
    assert all(torch.equal(a, b) for a, b in zip(search.network.parameters(), whole.network.parameters(), strict=True))
    for one in (search, whole):
        one._train()
    assert all(torch.equal(a, b) for a, b in zip(search.network.parameters(), whole.network.parameters(), strict=True))


def test_a_control_goes_on_from_a_checkpoint_laid_out_by_hand(tmp_path):
    half, _ = path_search(tmp_path, "random", 0.0)
    for _ in range(3):
        half._train()
    half._try()
    tensors = {f"model.{name}": value for name, value in half.network.state_dict().items()}
    for index, weight in enumerate(half.network.weights()):
        for key, value in half.optimiser.state.get(weight, {}).items():
            tensors[f"optimiser.{index}.{key}"] = torch.as_tensor(value)
    trials = half.tried.trials
    facts = {"phase": SCORING, "step": 3, "trials": trials, "seconds": 2.0, "cpu_seconds": 1.0}
    (tmp_path / "old").mkdir()
    save_by_hand(tmp_path / "old" / "paths.safetensors", tensors, {"fingerprint": "same", **facts})
    resumed, _ = path_search(tmp_path / "old", "random", 0.0)
    resumed._resume()
    assert vars(resumed.tried) == facts
    for one in (half, resumed):
        one._train()
        one._try()
    assert resumed.tried.trials == half.tried.trials and len(resumed.tried.trials) == 2
    assert all(torch.equal(a, b) for a, b in zip(resumed.network.parameters(), half.network.parameters(), strict=True))


def test_what_a_control_draws_does_not_follow_from_the_pairs(tmp_path):
    """The operation of an edge and the pair of a step are independent draws."""
    search, _ = path_search(tmp_path, "random", 0.0)
    pairs = [int(np.random.default_rng([1, step]).integers(8)) for step in range(2000)]
    names = [search._drawn(paths.PATHS, step)[0] for step in range(2000)]
    assert chi2_contingency(pd.crosstab(pairs, names)).pvalue > 1e-3


@pytest.mark.parametrize("by", ["random", "tpe"])
def test_a_path_that_cannot_be_scored_is_the_worst(tmp_path, by):
    search, _ = path_search(tmp_path, by, 0.0)
    losses = iter([float("nan"), 2.0, NotFiniteError("x"), 1.0, 3.0])

    def score(path):
        loss = next(losses)
        if isinstance(loss, Exception):
            raise loss
        return loss

    search.score = score
    for _ in range(5):
        search._try()
    assert [trial["loss"] for trial in search.tried.trials] == [math.inf, 2, math.inf, 1, 3]
    assert search.tried.best == search.tried.trials[3]["operations"]


# ---- what a study may ask


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"autosearch": {"epoch": 0}}, "search: epoch: 0 is less than the minimum of 1"),
        ({"autosearch": {"wat": []}}, "unknown key 'wat'; did you mean 'what'"),
        ({"autosearch": {"what": ["cells"]}}, "'cells' is not possible"),
        ({"autosearch": {}, "tune": {"ranges": {"lambda2": [0, 1]}}}, "'tune' is set as well"),
        ({"autosearch": {"start": "nowhere"}}, "'nowhere' is neither an entry with 'autosearch', nor an architecture"),
        ({"autosearch": {"start": "other"}, "lambda2": 1, "channels": None}, "start: 'lambda2' is set as well"),
        ({"autosearch": {}, "network": "unet"}, "a U-Net has no cells; search only for 'objective'"),
        ({"autosearch": {"by": "random"}}, "is needed with 'by: random' or 'by: tpe', and only allowed"),
        ({"autosearch": {"as_long_as": "other"}}, "is needed with 'by: random' or 'by: tpe', and only allowed"),
        (
            {"autosearch": {"by": "tpe", "as_long_as": "othr"}},
            "as_long_as: no entry is called 'othr'; did you mean 'other'",
        ),
        ({"autosearch": {"start": "ar"}}, "it waits for 'ar', which waits for it"),
        ({"autosearch": {"start": "round"}}, "it waits for 'round', which waits for it"),
        ({"autosearch": {"by": "tpe", "as_long_as": "round"}}, "it waits for 'round', which waits for it"),
        ({"autosearch": {"start": "plain"}}, "'plain' has no 'autosearch' to start from"),
        (
            {"autosearch": {"by": "tpe", "as_long_as": "weights"}},
            "'weights' must search for deformation, feature by grad",
        ),
        (
            {"autosearch": {"by": "tpe", "as_long_as": "other", "what": ["objective"]}},
            "λ is searched only by gradient",
        ),
        (
            {"autosearch": {"start": "edge", "what": ["objective"]}, "channels": None},
            "must start with 'lambda1' inside (0, 1)",
        ),
        ({"autosearch": False}, "autosearch: False is not a mapping of keys to values"),
        ({"method": "voxelmorph", "channels": None, "autosearch": {}}, "only 'autoreg' has this search"),
        (
            {"autosearch": {}, "lambda1": 1},
            "a search for the objective must start with 'lambda1' inside (0, 1), not at 1",
        ),
    ],
)
def test_a_search_that_cannot_be_done(tmp_path, values, message):
    chosen = {key: value for key, value in {**FAST, **values}.items() if value is not None}
    with pytest.raises(InputError, match=re.escape(message)):
        others = {
            "other": {**FAST, "autosearch": {}},
            "round": {**BARE, "autosearch": {"start": "ar"}},
            "weights": {**FAST, "autosearch": {"what": ["objective"]}},
            "edge": {**FAST, "lambda1": 1, "autosearch": {"what": ["feature"]}},
            "plain": FAST,
        }
        if "round" not in str(values):
            del others["round"]
        small_study(tmp_path, {"ar": chosen, **others})


def test_null_asks_for_no_search(tmp_path):
    assert small_study(tmp_path, {"ar": {**FAST, "autosearch": None}}).entries["ar"].cell_search is None


@pytest.mark.parametrize(("method", "network"), [("voxelmorph", None), ("autoreg", "unet")])
def test_a_model_without_cells_is_no_start(tmp_path, method, network):
    write_model_json(tmp_path, method=method, settings={"network": network})
    with pytest.raises(InputError, match=f"is a model of '{method}', which has no cells"):
        read_found(tmp_path, "here")


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"objective": None}, "objective: None is not a mapping of keys to values"),
        ({"objective": {"lamda1": 0.3}}, "objective: unknown key 'lamda1'; did you mean 'lambda1'"),
        ({"objective": {"lambda1": 1.5}}, "objective: lambda1: 1.5 is greater than the maximum of 1"),
        ({"network": {"steps": 1}}, "network: unknown key 'steps'"),
    ],
)
def test_what_is_wrong_beside_the_cells_is_named(tmp_path, parts, message):
    file = tmp_path / "mine.json"
    file.write_text(json.dumps({**MEDIUM.as_json(), **parts}))
    with pytest.raises(InputError) as error:
        read_found(file, "here")
    assert str(error.value).startswith(f"{file}: {message}")


def test_a_file_may_hold_cells_alone(tmp_path):
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(MEDIUM.as_json()))
    assert read_found(file, "here") == {"architecture": MEDIUM.as_json()}
    (tmp_path / "study").mkdir()
    small_study(tmp_path / "study", {"ar": {**FAST, "lambda2": 1, "autosearch": {"start": str(file)}}})


def test_settings_of_an_entry_hide_no_setting_of_a_method():
    for name in METHODS:
        assert not set(settings_type(name).attributes()) & set(ENTRY_KEYS), name


# ---- a whole search


@pytest.fixture(scope="module")
@marks_its_tests("slow")
def plan(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    methods = {
        "ar": {**FAST, "autosearch": SHORT},
        "random": {**FAST, "autosearch": {**SHORT, "what": ["feature"], "by": "random", "as_long_as": "ar"}},
        "moved": {**BARE, "autosearch": {**SHORT, "start": "ar", "what": []}},
        "vm": {**FAST, "network": "unet", "autosearch": {**SHORT, "what": ["objective"]}},
    }
    made = prepared(small_study(folder, methods))
    for name in methods:
        search_architecture(made, name, made.files.architecture(name), folder / "checkpoints" / name)
    return made


def found_in(plan, name, file):
    return json.loads((plan.files.architecture(name) / file).read_text())


def test_a_search_finds_cells_and_weights(plan):
    found, facts = found_in(plan, "ar", FOUND), found_in(plan, "ar", FACTS)
    assert Architecture.read(plan.files.architecture("ar") / FOUND).as_json() == {
        kind: found[kind] for kind in (FEATURE, DEFORMATION)
    }
    assert 0 < found["objective"]["lambda1"] < 1
    assert found["objective"] != pytest.approx({"lambda1": 0.5, "lambda2": 1.5, "lambda3": 0.32, "lambda4": 0.08})
    assert list(facts["stages"]) == [FEATURE, DEFORMATION, "objective"]
    assert all(facts["stages"][name]["steps"] == 6 for name in facts["stages"])
    took = {name: stage["cpu_seconds"] for name, stage in facts["stages"].items()}
    assert facts["cells_cpu_seconds"] == pytest.approx(took[FEATURE] + took[DEFORMATION])
    assert facts["cpu_seconds"] == pytest.approx(sum(took.values()))
    assert facts["stages"][FEATURE]["step_bytes"] > facts["stages"]["objective"]["step_bytes"] > 0


def test_the_trace_shows_the_mixtures_moving(plan):
    trace = pd.read_csv(plan.files.architecture("ar") / TRACE).set_index("stage")
    first_edge = [f"feature.half.1.{name}" for name in CANDIDATES]
    weights = trace.loc[FEATURE, first_edge]
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(weights.iloc[0], 1 / 8, atol=1e-6)
    assert (weights.iloc[-1] - 1 / 8).abs().max() > 0.01
    likeliest = weights.iloc[-1].idxmax().rsplit(".", 1)[1]
    assert found_in(plan, "ar", FOUND)["feature"]["half"][0] == likeliest
    assert trace.loc["objective", list(LAMBDAS)].notna().all(axis=None)


def test_a_search_that_is_done_twice_finds_the_same(plan, tmp_path):
    search_architecture(plan, "ar", tmp_path / "again", tmp_path / "checkpoints")
    assert json.loads((tmp_path / "again" / FOUND).read_text()) == found_in(plan, "ar", FOUND)


def test_a_killed_search_goes_on_where_it_was(plan, tmp_path, monkeypatch):
    class Killed(Stage):
        def _step(self, searching):
            if self.name == DEFORMATION and self.trace.step == 5:
                raise KeyboardInterrupt
            return super()._step(searching)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(stage, "Stage", Killed)
        search_architecture(plan, "ar", tmp_path / "found", tmp_path / "checkpoints")
    assert not (tmp_path / "found").exists()
    search_architecture(plan, "ar", tmp_path / "found", tmp_path / "checkpoints")
    assert json.loads((tmp_path / "found" / FOUND).read_text()) == found_in(plan, "ar", FOUND)
    assert not list((tmp_path / "checkpoints").glob("*.safetensors"))


def test_what_is_not_searched_is_taken_over(plan):
    assert found_in(plan, "moved", FOUND) == found_in(plan, "ar", FOUND)
    tried = found_in(plan, "random", FOUND)
    assert tried["deformation"] == MEDIUM.as_json()["deformation"] and tried["objective"]["lambda2"] == 1.5
    facts = found_in(plan, "random", FACTS)
    allowed = round(found_in(plan, "ar", FACTS)["cells_cpu_seconds"], 1)  # a sum of tenths is not quite one
    assert facts["stages"]["random"]["cpu_seconds"] >= allowed
    assert found_in(plan, "vm", FOUND)["objective"]["lambda2"] != 1.5


def test_training_follows_the_file_that_a_search_left(plan, tmp_path):
    train(plan, "ar", tmp_path / "model", tmp_path / "checkpoints", found_values(plan, "ar"))
    model, found = load_model(tmp_path / "model"), found_in(plan, "ar", FOUND)
    assert model.method.settings.architecture == {kind: found[kind] for kind in (FEATURE, DEFORMATION)}
    assert model.method.weights == found["objective"]
    assert read_found(tmp_path / "model", "x") == found_values(plan, "ar")


@pytest.mark.slow
def test_a_search_needs_labels_of_validation_scans_alone(tmp_path):
    weights = {**FAST, "autosearch": {**SHORT, "what": ["objective"]}}  # what looks at labels
    made = prepared(small_study(tmp_path, {"ar": weights}, unlabelled=range(4)))
    assert any(made.cohort.file(scan, "labels") is None for scan in made.entries["ar"].training_pairs.scans)
    search_architecture(made, "ar", made.files.architecture("ar"), tmp_path / "checkpoints")
    assert (made.files.architecture("ar") / FOUND).is_file()


def test_the_validation_pair_does_not_follow_from_the_training_pair(plan):
    data = stage._Data(plan, "ar", plan.entries["ar"].make())
    rows = [(step % 7, float(data.validation(step)["fixed"].sum()) * 1000 // 1) for step in range(40)]
    training = [float(data.training(step)["fixed"].sum()) * 1000 // 1 for step in range(40)]
    partners = pd.crosstab(training, [number for _, number in rows])
    assert ((partners > 0).sum(axis=1) > 1).any(), "each training scan always meets the same validation scan"


def test_a_search_that_diverges_says_so(plan, tmp_path):
    config = {key: value for key, value in plan.config.items() if key != "unavailable"}
    wild = {**FAST, "autosearch": {**SHORT, "learning_rate": 1e30, "epochs": 3}}
    other = plan_study(config | {"methods": {"ar": wild}}, str(plan.folder.parent))
    with pytest.raises(DivergedError, match="the search of feature diverged in epoch"):
        search_architecture(other, "ar", tmp_path / "found", tmp_path / "checkpoints")
