"""Hyper-TransMorph and Hyper-TM-SPR: ranges, what is generated, and that hyperparameters reach network and loss."""

import json

import pytest
import torch
from click.testing import CliRunner
from support.hypernetworks import coarsely_tuned
from support.studies import prepared, small_study

from regcore.commands.cli import main
from regcore.errors import InputError
from regcore.methods import make_method
from regcore.models.trained import load_model
from regcore.study.stages.train import labelled_pairs, pairs_of_split, train
from regcore.training.forward import forward
from regcore.tuning.amortised import sweep

SMALL = {"size": "tiny", "norm": "instance", "time_steps": 2, "hidden": [8, 4], "drop_path": 0}


def pair(size=32):
    torch.manual_seed(1)
    return {"fixed": torch.rand(1, 1, size, size), "moving": torch.rand(1, 1, size, size)}


def made(name, **settings):
    method = make_method(name, {**SMALL, **settings})
    method.fit_to((32, 32))
    torch.manual_seed(0)
    method.module = method.build(2)
    return method


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("hyperspr", {"ranges": {"alpha": [0.2, 0]}}, r"method.ranges: alpha: \[0.2, 0\] must ascend"),
        ("hyperspr", {"ranges": {"sigma": [0, 1]}}, "method.ranges: no hyperparameter 'sigma'"),
        ("hyperspr", {"ranges": {"alpha": [0, 1]}}, "set 'lambda_max', or give its range in 'ranges'"),
        ("hyperspr", {"lambda_max": 1, "alpha": 0.1}, "both hyperparameters are set; give 'ranges'"),
        ("hyperspr", {"checkpointing": True, "generated": ["network.encoder"]}, "'checkpointing' computes the encoder"),
        ("hyperspr", {"generated": ["encoder"]}, "'generated': the network has no part 'encoder'"),
        ("hypertransmorph", {"prior": {"lambda": [0, 2]}}, r"must ascend within \[0, 1\]"),
        ("hypertransmorph", {"lambda": 1.5}, "1.5 is greater than the maximum of 1"),
        ("hypertransmorph", {"passes": 2}, "2 is not possible"),
    ],
)
def test_settings_that_cannot_be(name, settings, message):
    with pytest.raises(InputError, match=message):
        make_method(name, settings)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {"lambda_max": [0, 5], "alpha": [0, 0.2]}),
        ({"prior": "gaussian"}, {"lambda_mean": [0, 5], "sigma": [0, 4]}),
        ({"ranges": {"alpha": [0, 1], "lambda_max": [0.5, 2]}}, {"alpha": [0, 1], "lambda_max": [0.5, 2]}),
    ],
)
def test_ranges_are_those_of_the_paper_or_given(settings, expected):
    method = make_method("hyperspr", settings)
    assert method.ranges == expected
    ends = [method.values_of(row) for row in torch.tensor([[0.0, 0.0], [1.0, 1.0]])]
    assert ends == [{name: bounds[end] for name, bounds in expected.items()} for end in (0, 1)]


def test_a_value_without_a_range_is_a_constant():
    assert make_method("hyperspr", {"lambda_max": 9}).hyperparameters == ["alpha"]


def test_only_layers_after_the_encoder_are_generated():
    for name, method in {name: made(name) for name in ("hypertransmorph", "hyperspr")}.items():
        parts = {part.removeprefix("network.").partition(".")[0] for part in method.module.generated}
        assert parts == {"looks", "decoders", "heads"} | ({"head"} if name == "hyperspr" else set())


def test_a_short_last_layer_bounds_the_memory():
    """All of the network's weights, through a matrix of four columns and a bias."""
    method = made("hypertransmorph", generated=["encoder", "up", "at_quarter", "looks", "decoders", "heads"])
    plain = make_method("transmorph", {key: SMALL[key] for key in ("size", "norm", "time_steps")})
    plain.fit_to((32, 32))
    weights = sum(p.numel() for p in plain.build(2).parameters())
    assert method.module.count == weights
    assert sum(p.numel() for p in method.module.parameters()) < 5.1 * weights


@pytest.mark.parametrize("name", ["hypertransmorph", "hyperspr"])
def test_hyperparameters_reach_the_network_and_the_loss(name):
    method, images = made(name), pair()
    count = len(method.hyperparameters)
    with torch.no_grad():
        method.module.weights.weight.mul_(30)  # before training the matrix is small
        flows = [
            method.predict_at(method.module.eval(), *images.values(), torch.full((1, count), at)) for at in (0.0, 1.0)
        ]
    assert (flows[0] - flows[1]).abs().max() > 1e-6
    batch = {key: image.expand(3, -1, -1, -1) for key, image in images.items()}
    torch.manual_seed(2)
    losses = method.training_step(method.module.train(), batch)
    assert torch.isfinite(losses["total"])
    losses["total"].backward()
    assert method.module.weights.weight.grad.abs().sum() > 0 and method.module.mlp[0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize("name", ["hypertransmorph", "hyperspr"])
def test_volumes_as_well_as_slices(name):
    """The window that training settled stands in a model's settings when it is loaded."""
    method = make_method(name, {**SMALL, "attention": [1, 1, 1]})
    torch.manual_seed(0)
    method.module = method.build(3).eval()
    images = torch.rand(2, 1, 1, 32, 32, 32)
    with torch.no_grad():
        flow = method.predict_at(method.module, *images, torch.full((1, len(method.hyperparameters)), 0.5))
        assert method.displacement(flow, images[0]).shape == (1, 3, 32, 32, 32)
    again = make_method(name, method.settings)
    again.build(3).load_state_dict(method.module.state_dict())


@pytest.mark.parametrize("name", ["transmorph", "spr", "hypertransmorph", "hyperspr"])
def test_arithmetic_in_bfloat16_gives_about_the_same_loss(name):
    own = {key: value for key, value in SMALL.items() if key != "hidden" or name.startswith("hyper")}
    method = make_method(name, {**own, "precision": "bfloat16"})
    method.fit_to((32, 32))
    torch.manual_seed(0)
    module = method.build(2)
    found = []
    for precision in ("float32", "bfloat16"):
        torch.manual_seed(1)
        losses = method.training_step(forward(module, torch.device("cpu"), precision), pair())
        found.append(losses["total"].item())
        losses["total"].backward()
    assert found[1] == pytest.approx(found[0], abs=0.02)
    assert all(torch.isfinite(weight.grad).all() for weight in module.parameters() if weight.grad is not None)


def test_rows_give_what_each_alone_gives():
    method, images = made("hyperspr"), pair()
    rows = torch.tensor([[0.1, 0.9], [0.5, 0.5], [1.0, 0.0]])
    method.module.eval()
    with torch.no_grad():
        together = method.predict_at(method.module, *images.values(), rows)
        alone = [method.predict_at(method.module, *images.values(), row[None]) for row in rows]
    torch.testing.assert_close(together, torch.cat(alone))


def test_the_loss_is_that_of_the_network_at_the_drawn_values():
    hyper, images = made("hyperspr", end_points=0), pair()
    values = {"lambda_max": 2.5, "alpha": 0.1}
    flow = torch.randn(1, 3, 16, 16)
    plain = make_method("spr", {**{k: SMALL[k] for k in ("size", "norm", "time_steps")}, **values})
    found, expected = hyper.at(values).losses(flow, images), plain.losses(flow, images)
    assert {key: float(value) for key, value in found.items()} == {key: float(v) for key, v in expected.items()}


@pytest.mark.slow
def test_training_chooses_the_best_values(tmp_path):
    """Sweeps score other values of the same model, a cohort tunes it anew, and a pair takes any."""
    fast = {**SMALL, "steps": 4, "validate_every": 2, "learning_rate": 0.01}
    plan = prepared(small_study(tmp_path, {"hyper": {"method": "hyperspr", **fast}}, train_subjects=2))
    with coarsely_tuned():
        train(plan, "hyper", tmp_path / "model", tmp_path / "checkpoints")
    model = load_model(tmp_path / "model")
    values = model.facts["tuned"]["values"]
    assert set(values) == {"lambda_max", "alpha"} and model.method.values == values
    labelled, codes = labelled_pairs(plan, pairs_of_split(plan, "validation"))
    table = sweep(model.method, labelled, codes, torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
    assert set(table["lambda_max"]) == {0, 5} and table["value"].notna().all()
    model, cohort, out = (str(tmp_path / name) for name in ("model", "cohort.tsv", "out"))
    with coarsely_tuned():
        done = CliRunner().invoke(main, ["tune", model, cohort, "-o", out, "--split", "test", "--points", "3"])
    assert done.exit_code == 0 and "alpha" in done.output, done.output
    pair = [str(tmp_path / name) for name in ("s4.nii.gz", "s5.nii.gz")]
    chosen = ["--method", model, "--set", "alpha=0.05", "--set", "lambda_max=1"]
    done = CliRunner().invoke(main, ["register", *pair, "-o", out, *chosen])
    assert done.exit_code == 0, done.output
    settings = json.loads((tmp_path / "out" / "register.json").read_text())["settings"]
    assert (settings["alpha"], settings["lambda_max"]) == (0.05, 1)
