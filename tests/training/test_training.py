"""Training: drawing pairs, exact resume, early stop, precision, memory, and models that rebuild themselves."""

import ctypes
import math
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import chisquare
from support.checkpoints import save_by_hand
from support.processes import forked
from support.studies import dice_by_hand, prepared, small_study
from torch import nn

from regcore.alignment.settings import PreprocessSettings
from regcore.errors import InputError
from regcore.images.volume import Grid, Volume, read_volume
from regcore.methods import make_method
from regcore.methods.base import as_tensor
from regcore.models.trained import load_model, save_model
from regcore.study.stages.train import labelled_pairs, pairs_of_split, train, training_seed
from regcore.training import checkpoint, memory, pairs
from regcore.training.checkpoint import exclusive, load_tensors, save_tensors
from regcore.training.forward import forward
from regcore.training.pairs import PairSampler
from regcore.training.schedule import plateaus
from regcore.training.trainer import Trainer
from regcore.training.validation import validate_network

SETTINGS = {"steps": 12, "validate_every": 4, "learning_rate": 1e-3, "lambda": 0.01, "schedule": "cosine"}
GRID = Grid.centred((32, 32), (1, 1), (0, 0))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Discs of different sizes, whose halves are labelled 7 and 40."""
    folder = tmp_path_factory.mktemp("images")
    distance = np.linalg.norm(np.moveaxis(np.indices((32, 32)), 0, -1) - 15.5, axis=-1)
    stems = {}
    for radius in range(6, 12):
        stem = stems[f"disc{radius}"] = folder / f"disc{radius}"
        Volume(1 / (1 + np.exp(distance - radius)).astype("f4"), GRID).save(f"{stem}.nii")
        labels = np.where(distance < radius, np.where(np.indices((32, 32))[0] < 16, 7, 40), 0)
        Volume(labels.astype(np.int16), GRID).save(f"{stem}_labels.nii")
    return stems


def image(images, name):
    return read_volume(f"{images[name]}.nii")


def all_pairs(images):
    return [(a, b) for a in sorted(images) for b in sorted(images) if a != b]


def trainer(images, folder, fingerprint="same", stop_after=None, classes=None, method="voxelmorph", **changes):
    """A small training; ``stop_after`` raises KeyboardInterrupt in the middle of that step."""
    method = make_method(method, SETTINGS | changes)
    sampler = PairSampler(all_pairs(images), images, seed=3, classes=classes)
    draw = sampler.batch

    def interrupted(step, *which):
        if step == stop_after:
            raise KeyboardInterrupt
        return draw(step, *which)

    sampler.batch = interrupted
    fixed, moving = as_tensor(image(images, "disc6")), as_tensor(image(images, "disc11"))

    def validate(module):
        displacement, _ = method.displacements(method.predict(module, fixed, moving), fixed)
        return {"dice": -float(displacement.square().mean())}

    return Trainer(method, sampler, validate, folder, fingerprint, ndim=2, seed=5, device="cpu")


def final_weights(run):
    return {name: value.clone() for name, value in run.module.state_dict().items()}


def assert_equal(first, second):
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimiser": "muon", "passes": 2},
        {"method": "synthmorph", "optimiser": "muon", "passes": 3, "width": 0.125, "r_p": 8, "b_p": 10, "r_v": [8]},
    ],
    ids=["voxelmorph", "muon", "synthmorph"],
)
def test_an_interrupted_training_resumes_to_the_very_same_weights(images, tmp_path, changes):
    whole = trainer(images, tmp_path / "whole", **changes)
    expected = whole.run()
    with pytest.raises(KeyboardInterrupt):
        trainer(images, tmp_path / "cut", stop_after=10, **changes).run()
    resumed = trainer(images, tmp_path / "cut", **changes)
    result = resumed.run()
    assert_equal(final_weights(resumed), final_weights(whole))
    assert_equal(result.weights, expected.weights)
    columns = [name for name in expected.history[0] if name != "seconds"]
    assert [[row[c] for c in columns] for row in result.history] == [
        [row[c] for c in columns] for row in expected.history
    ]


@pytest.mark.slow
@pytest.mark.parametrize("optimiser", ["adam", "muon"])
def test_a_training_goes_on_from_a_checkpoint_laid_out_by_hand(images, tmp_path, optimiser):
    """The layout of the file is a promise: trainings that are half finished outlive an update."""
    whole = trainer(images, tmp_path / "whole", optimiser=optimiser)
    expected = whole.run()
    half = trainer(images, tmp_path / "half", stop_after=8, optimiser=optimiser)
    with pytest.raises(KeyboardInterrupt):
        half.run()
    tensors = {f"model.{name}": value for name, value in half.module.state_dict().items()}
    tensors |= {f"best.{name}": value for name, value in half.best.items()}
    in_order = [parameter for group in half.optimiser.param_groups for parameter in group["params"]]
    for index, parameter in enumerate(in_order):
        for key, value in half.optimiser.state[parameter].items():
            tensors[f"optimiser.{index}.{key}"] = torch.as_tensor(value)
    facts = {
        "fingerprint": "same",
        "step": 8,
        "seconds": 70.5,
        "cpu_seconds": 60.5,
        "best_step": half.best_step,
        "best_score": half.best_score,
        "history": half.history,
    }
    (tmp_path / "old").mkdir()
    save_by_hand(tmp_path / "old" / "checkpoint.safetensors", tensors, facts)
    resumed = trainer(images, tmp_path / "old", optimiser=optimiser)
    resumed._resume()
    assert (resumed.step, resumed.seconds, resumed.cpu_seconds) == (8, 70.5, 60.5)
    result = resumed.run()
    assert_equal(final_weights(resumed), final_weights(whole))
    assert_equal(result.weights, expected.weights)
    assert result.facts["best_step"] == expected.facts["best_step"]
    assert resumed.seconds > 70.5 and resumed.cpu_seconds > 60.5, "counted on, though facts may round it away"
    assert result.facts["seconds"] == round(resumed.seconds, 1)
    assert result.facts["cpu_seconds"] == round(resumed.cpu_seconds, 1)


def test_training_moves_the_weights_and_the_same_seed_moves_them_alike(images, tmp_path):
    first, second = trainer(images, tmp_path / "a"), trainer(images, tmp_path / "b")
    start = final_weights(first)
    first.run()
    second.run()
    assert_equal(final_weights(first), final_weights(second))
    assert any(not torch.equal(start[name], value) for name, value in final_weights(first).items())


def test_a_checkpoint_of_other_settings_is_not_resumed(images, tmp_path):
    trainer(images, tmp_path, fingerprint="old").run()
    fresh = trainer(images, tmp_path, fingerprint="new")
    fresh._resume()
    assert fresh.step == 0


def test_the_weights_with_the_best_validation_score_are_kept(images, tmp_path):
    run = trainer(images, tmp_path)
    scores = iter([0.1, 0.9, 0.5])
    run.validate = lambda module: {"dice": next(scores)}
    result = run.run()
    assert result.facts["best_step"] == 8
    assert any(not torch.equal(result.weights[name], value) for name, value in final_weights(run).items())


def test_a_diverging_training_ends_with_a_remedy(images, tmp_path):
    run = trainer(images, tmp_path)
    step = run.method.training_step
    run.method.training_step = lambda module, batch: {k: v * torch.nan for k, v in step(module, batch).items()}
    with pytest.raises(InputError, match=r"diverged.*learning_rate"):
        run.run()


@pytest.mark.slow
def test_the_loss_falls_on_a_pair_that_can_be_registered(images, tmp_path):
    history = trainer(images, tmp_path, steps=150, validate_every=50).run().history
    assert history[-1]["mse"] < 0.5 * history[0]["mse"]


def enter(folder):
    """Say in a file how it ends when a process wants to train in ``folder``."""
    try:
        with exclusive(folder):
            said = "entered"
    except InputError as error:
        said = str(error)
    (folder / "said").write_text(said)


def test_a_second_process_may_not_train_in_the_same_folder(tmp_path):
    with exclusive(tmp_path):
        forked(enter, tmp_path).join()
    assert "another process is training here" in (tmp_path / "said").read_text()
    forked(enter, tmp_path).join()
    assert (tmp_path / "said").read_text() == "entered"
    with exclusive(tmp_path):
        pass


def test_tensors_and_facts_survive_and_a_broken_file_is_named(tmp_path):
    path = tmp_path / "x.safetensors"
    save_tensors(path, {"a": torch.arange(6).view(2, 3).t()}, {"step": 4, "list": [1, 2]})
    tensors, facts = load_tensors(path)
    assert torch.equal(tensors["a"], torch.arange(6).view(2, 3).t())
    assert facts == {"step": 4, "list": [1, 2]}
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(InputError, match=r"x\.safetensors.*train the model again"):
        load_tensors(path)


def test_a_saved_model_registers_as_the_trained_one(images, tmp_path):
    run = trainer(images, tmp_path / "checkpoints")
    trained = run.run()
    reference = image(images, "disc8")
    preprocess = PreprocessSettings(affine="none")
    save_model(tmp_path / "model", "voxelmorph", run.method, trained, reference, GRID, preprocess)
    model = load_model(tmp_path / "model")
    assert model.preprocess == preprocess
    assert model.facts["parameters"] == sum(p.numel() for p in run.module.parameters())
    fixed, moving = image(images, "disc6"), image(images, "disc11")
    run.module.load_state_dict(trained.weights)
    tensor = as_tensor(fixed)
    expected, _ = run.method.displacements(run.method.predict(run.module, tensor, as_tensor(moving)), tensor)
    assert torch.equal(model.method.register(fixed, moving).field.displacement, expected.detach())
    with pytest.raises(InputError, match=r"no model\.json"):
        load_model(tmp_path)


def test_batches_depend_on_the_step_alone(images):
    one, two = PairSampler(all_pairs(images), images, seed=1), PairSampler(all_pairs(images), images, seed=1)
    for step in (0, 1, 2):
        one.batch(step, 2)
    assert torch.equal(one.batch(7, 4)["fixed"], two.batch(7, 4)["fixed"])
    assert not torch.equal(one.batch(7, 4)["fixed"], one.batch(8, 4)["fixed"])
    assert one.batch(0, 4)["moving"].shape == (4, 1, 32, 32)
    parts = [one.batch(7, 4, slice(start, start + 2))["moving"] for start in (0, 2)]
    assert torch.equal(torch.cat(parts), one.batch(7, 4)["moving"])


def test_every_pair_is_drawn_equally_often(images):
    sampler = PairSampler(all_pairs(images), images, seed=1)
    names = sorted(images)
    means = [float(image(images, name).data.mean(dtype=np.float32)) for name in names]
    drawn = sampler.batch(0, 6000)
    sides = [
        np.abs(np.subtract.outer(drawn[side].mean((1, 2, 3)).numpy(), means)).argmin(1) for side in ("fixed", "moving")
    ]
    counts = np.zeros((len(names), len(names)))
    np.add.at(counts, tuple(sides), 1)
    assert (np.diag(counts) == 0).all()
    assert chisquare(counts[~np.eye(len(names), dtype=bool)]).pvalue > 0.01


def test_some_pairs_beside_training_are_different_and_follow_the_seed(images):
    some = PairSampler(all_pairs(images), images, seed=1).some(16)
    assert len(set(some)) == 16
    assert some == PairSampler(all_pairs(images), images, seed=1).some(16)
    assert len(PairSampler(all_pairs(images)[:3], images, seed=1).some(16)) == 3


def test_batches_hold_the_observed_labels_as_classes(images):
    sampler = PairSampler(all_pairs(images), images, seed=1, classes={40: 1})
    batch = sampler.batch(0, 3)
    assert batch["codes"] == [1]
    for side in ("fixed", "moving"):
        labels = batch[f"{side}_labels"]
        assert labels.dtype == torch.int16 and labels.shape == (3, 1, 32, 32)
        inside = batch[side] > 0.5
        inside[:, :, :16] = False
        assert torch.equal(labels == 1, inside) and set(labels.unique().tolist()) == {0, 1}
    assert set(PairSampler(all_pairs(images), images, seed=1).batch(0, 1)) == {"fixed", "moving"}


def test_no_more_scans_are_kept_than_fit(images, monkeypatch):
    monkeypatch.setattr(pairs, "CACHED_BYTES", 3 * 32 * 32 * 4)
    read = []
    monkeypatch.setattr(pairs, "read_volume", lambda path: read.append(path) or read_volume(path))
    sampler = PairSampler([("disc6", "disc7"), ("disc7", "disc8")], images, seed=1)
    for step in range(5):
        sampler.batch(step, 4)
    assert len(read) == 3
    sampler = PairSampler(all_pairs(images), images, seed=1)
    for step in range(5):
        sampler.batch(step, 4)
    assert sampler._load.cache_info().currsize == 3 and len(read) > 3 + len(images)


@pytest.mark.slow
def test_training_with_labels_pulls_labels_together(images, tmp_path):
    changes = {"gamma": "infinity", "steps": 120, "validate_every": 40, "learning_rate": 3e-3}
    history = trainer(images, tmp_path, classes={7: 1, 40: 2}, **changes).run().history
    assert history[-1]["label_dice"] < 0.7 * history[0]["label_dice"]


@pytest.mark.parametrize("changes", [{}, {"gamma": 0.1}, {"similarity": "lncc", "bidirectional": True}], ids=str)
def test_a_batch_in_parts_has_the_gradient_of_the_whole(images, tmp_path, changes):
    totals, gradients = [], []
    for accumulate in (1, 3):
        settings = {"batch_size": 6, "accumulate": accumulate, **changes}
        run = trainer(images, tmp_path, classes={7: 1, 40: 2} if "gamma" in changes else None, **settings)
        with torch.no_grad():
            [weight for weight in run.module.parameters() if weight.ndim > 1][-1].mul_(1e4)  # a flow that matters
        totals.append(run._train_step()["total"].item() / accumulate)
        gradients.append([parameter.grad for parameter in run.module.parameters()])
    assert totals[1] == pytest.approx(totals[0], rel=1e-5)
    assert max(float(one.abs().max()) for one in gradients[0]) > 1e-4
    for one, parts in zip(*gradients, strict=True):
        torch.testing.assert_close(parts, one, rtol=0, atol=1e-6)


def test_a_batch_that_cannot_be_cut_is_refused(images, tmp_path):
    with pytest.raises(
        InputError, match=r"'batch_size' of 4 cannot be split .* 'accumulate: 3'; choose a multiple of 3"
    ):
        trainer(images, tmp_path, batch_size=4, accumulate=3)


@pytest.mark.slow
def test_bfloat16_trains_float32_weights(images, tmp_path):
    run = trainer(images, tmp_path, precision="bfloat16", steps=150, validate_every=50)
    seen = []
    run.module.register_forward_hook(lambda module, inputs, flow: seen.append(flow.dtype))
    result = run.run()
    assert torch.bfloat16 in seen
    assert result.history[-1]["mse"] < 0.5 * result.history[0]["mse"]
    assert {weight.dtype for weight in result.weights.values()} == {torch.float32}
    assert {value.dtype for state in run.optimiser.state.values() for value in state.values()} == {torch.float32}


@pytest.mark.slow
def test_a_compiled_network_computes_and_saves_the_same(images, tmp_path, monkeypatch):
    compiled, compile = [], torch.compile

    def eagerly(module, **options):
        compiled.append(module)
        return compile(module, backend="eager", **options)

    plain = trainer(images, tmp_path / "plain").run()
    monkeypatch.setattr(torch, "compile", eagerly)
    run = trainer(images, tmp_path / "compiled", compile=True)
    fast = run.run()
    assert compiled == [run.module]
    assert_equal(fast.weights, plain.weights)
    assert not any("_orig_mod" in name for name in load_tensors(run.checkpoint.path)[0])


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
def test_compilation_by_a_real_compiler(monkeypatch):
    from torch._inductor import config

    monkeypatch.setattr(config.cpp, "vec_isa_ok", True)  # or torch compiles a dozen programs to learn what a CPU can do
    module = nn.Conv2d(1, 2, 3)
    x = torch.rand(1, 1, 8, 8)
    torch.testing.assert_close(forward(module, x.device, compiled=True)(x), module(x))


def test_without_a_compiler_the_remedy_is_named(monkeypatch):
    from torch._inductor.exc import InvalidCxxCompiler

    def fails(*inputs):
        raise InvalidCxxCompiler

    monkeypatch.setattr(torch, "compile", lambda module, **options: fails)
    with pytest.raises(InputError, match=r"cannot be compiled .* 'compile: false'"):
        forward(nn.Conv2d(1, 2, 3), torch.device("cpu"), compiled=True)(torch.rand(1, 1, 8, 8))
    monkeypatch.setattr(torch, "compile", lambda module, **options: module)
    with pytest.raises(RuntimeError, match="expected input"):
        forward(nn.Conv2d(1, 2, 3), torch.device("cpu"), compiled=True)(torch.rand(1, 5, 8, 8))


def scores(*values):
    """A validation that finds these scores, at steps 1, 2, …, whenever it is asked."""
    return lambda run: setattr(run, "validate", lambda module: {"dice": values[run.step - 1]})


STALLING = (0.1, 0.5, 0.4, 0.5, 0.6, 0.2, 0.3, 0.6, 0.9, 0.9, 0.9, 0.9)


def test_training_stops_when_validation_no_longer_gets_better(images, tmp_path):
    run = trainer(images, tmp_path, patience=3, validate_every=1)
    scores(*STALLING)(run)
    result = run.run()
    assert (result.facts["steps"], result.facts["stopped_early"], result.facts["best_step"]) == (8, True, 5)
    patient = trainer(images, tmp_path, fingerprint="patient", patience=4, validate_every=1)
    scores(*STALLING)(patient)
    assert not patient.run().facts["stopped_early"] and patient.step == 12


def test_patience_goes_on_counting_after_an_interruption(images, tmp_path):
    cut = trainer(images, tmp_path, patience=3, validate_every=1, stop_after=7)
    scores(*STALLING)(cut)
    with pytest.raises(KeyboardInterrupt):
        cut.run()
    for _ in range(2):  # the second time from the checkpoint of a training that has ended
        resumed = trainer(images, tmp_path, patience=3, validate_every=1)
        scores(*STALLING)(resumed)
        result = resumed.run()
        assert (result.facts["steps"], result.facts["stopped_early"], result.facts["best_step"]) == (8, True, 5)
    whole = trainer(images, tmp_path / "whole", patience=3, validate_every=1)
    scores(*STALLING)(whole)
    assert_equal(result.weights, whole.run().weights)


RISING_AND_FLAT = (0.1, 0.3, 0.3, 0.3, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4)


def test_the_rate_drops_to_a_fifth_on_plateaus_and_then_training_ends(images, tmp_path):
    settings = {"schedule": "plateau", "patience": 2, "drops": 2, "validate_every": 1, "learning_rate": 1e-3}
    run = trainer(images, tmp_path / "whole", **settings)
    scores(*RISING_AND_FLAT)(run)
    result = run.run()
    rates = [row["learning_rate"] for row in result.history]
    # the looks at steps 3 and 4 bring nothing, then those at 6 and 7, and at 8 and 9
    np.testing.assert_allclose(rates, [1e-3] * 4 + [2e-4] * 3 + [4e-5] * 2)
    assert (result.facts["steps"], result.facts["best_step"], result.facts["stopped_early"]) == (9, 5, True)
    cut = trainer(images, tmp_path / "cut", stop_after=6, **settings)
    scores(*RISING_AND_FLAT)(cut)
    with pytest.raises(KeyboardInterrupt):
        cut.run()
    resumed = trainer(images, tmp_path / "cut", **settings)
    scores(*RISING_AND_FLAT)(resumed)
    assert [row["learning_rate"] for row in resumed.run().history] == rates
    assert_equal(final_weights(resumed), final_weights(run))


def test_the_optimiser_follows_the_rate_that_it_writes_down(images, tmp_path):
    run = trainer(images, tmp_path, schedule="plateau", patience=1, validate_every=1, learning_rate=1e-3)
    scores(*RISING_AND_FLAT)(run)
    used, take = [], run.optimiser.step
    run.optimiser.step = lambda: (used.append(run.optimiser.param_groups[0]["lr"]), take())
    history = run.run().history
    assert used == [row["learning_rate"] for row in history] and len(set(used)) == 3


@pytest.mark.parametrize(
    ("found", "patience", "tolerance", "count"),
    [
        ([1, 2, 3], 1, 0, 0),
        ([1, 1, 1], 1, 0, 2),
        ([1, 1, 1, 1], 2, 0, 1),
        ([1, 1.05, 1.2, 1.21], 1, 0.1, 2),  # 1.05 is not a tenth above 1, 1.21 not above 1.2
        ([1, 1.05, 1.09, 1.11], 3, 0.1, 0),  # the last is, of the best that counted
        ([-1, -0.95, -0.85], 2, 0.1, 0),  # losses: less of them is better
        ([-1, -0.95, -0.92], 2, 0.1, 1),
    ],
)
def test_plateaus_are_counted(found, patience, tolerance, count):
    assert plateaus(found, patience, tolerance) == count


def test_plateaus_need_patience():
    with pytest.raises(InputError, match=r"methods\.net: 'schedule: plateau' needs 'patience'"):
        make_method("voxelmorph", {"schedule": "plateau"}, "methods.net")


def test_a_hypernetwork_takes_memory_for_every_pair_but_not_for_every_voxel():
    """Generated weights: as many bytes for a small pair as for a large one."""
    plain = make_method("voxelmorph", {"weighting": "convex", "lambda": 0.5, "architecture": "half"})
    hyper = make_method("hypermorph", {"hidden": [4]})
    modules = [method.build(2) for method in (plain, hyper)]
    shape = (256, 256)
    growth = []
    for method, module in zip((plain, hyper), modules, strict=True):
        one, nine = (memory.step_bytes(method, module, shape, batch) for batch in (1, 9))
        growth.append((nine - one) / 8)
    generated = 4 * modules[1].count
    assert growth[1] - growth[0] < 12 * generated, "a few copies of the weights, not one for every part of an image"
    assert growth[0] > 20 * generated, "or the comparison would say nothing"


def test_validation_pairs_without_labels_do_not_count_and_some_must_have_one(tmp_path):
    plan = prepared(small_study(tmp_path, {"net": {"method": "voxelmorph", **SETTINGS}}))
    labelled, codes = labelled_pairs(plan, pairs_of_split(plan, "validation"))
    method = make_method("voxelmorph", plan.entries["net"].settings)
    module = method.build(2)
    with torch.no_grad():
        whole = validate_network(method, module, labelled, codes)
        assert validate_network(method, module, labelled, [*codes, 99]) == whole
        with pytest.raises(InputError, match="no validation pair has a scored label"):
            validate_network(method, module, labelled, [99])


def test_weights_can_be_selected_by_the_loss(images, tmp_path):
    run = trainer(images, tmp_path, select="loss", validate_every=1, steps=3)
    looks = iter([{"dice": 0.5, "loss": 3.0}, {"dice": 0.3, "loss": 1.0}, {"dice": 0.9, "loss": 2.0}])
    run.validate = lambda module: next(looks)
    result = run.run()
    assert result.facts["best_step"] == 2 and result.facts["best_validation_dice"] == 0.3
    assert [row["validation_loss"] for row in result.history] == [3, 1, 2]


def test_a_look_at_validation_pairs_has_the_loss_and_the_dice_of_each(images, tmp_path):
    plan = prepared(small_study(tmp_path, {"net": {"method": "voxelmorph", "gamma": 0.5, **SETTINGS}}))
    labelled, codes = labelled_pairs(plan, pairs_of_split(plan, "validation"))
    method = make_method("voxelmorph", plan.entries["net"].settings)
    torch.manual_seed(0)
    module = method.build(2)
    with torch.no_grad():
        found = validate_network(method, module, labelled, codes, with_loss=True, classes={1: 1})
        losses = []
        for pair in labelled.pairs:
            batch = labelled.batch(pair, torch.device("cpu"), {1: 1})
            losses.append(method.training_step(module, batch)["total"].item())
    assert found["loss"] == pytest.approx(np.mean(losses), rel=1e-6)
    assert set(validate_network(method, module, labelled, codes)) == {"dice"}


def test_replicates_differ_in_start_and_order_alone():
    assert training_seed(7, 1) == 7
    assert len({training_seed(7, n) for n in range(1, 6)}) == 5


def test_the_curve_can_be_watched_while_training(images, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        trainer(images, tmp_path, stop_after=9).run()
    history = pd.read_csv(tmp_path / "history.csv")
    assert list(history["step"]) == [4, 8]
    rates = [1e-3 * 0.5 * (1 + math.cos(math.pi * step / 12)) for step in (3, 7)]
    np.testing.assert_allclose(history["learning_rate"], rates)


def test_what_a_method_draws_at_random_is_resumed_too(images, tmp_path):
    def noisy(folder, **options):
        run = trainer(images, folder, batch_size=2, accumulate=2, **options)
        step = run.method.training_step

        def training_step(module, batch):
            drawn.append(torch.rand(1).item())
            return step(module, {**batch, "fixed": batch["fixed"] + 0.1 * torch.randn_like(batch["fixed"])})

        run.method.training_step = training_step
        return run

    drawn = []
    whole = noisy(tmp_path / "whole")
    whole.run()
    assert len(set(drawn)) > 20
    with pytest.raises(KeyboardInterrupt):
        noisy(tmp_path / "cut", stop_after=10).run()
    resumed = noisy(tmp_path / "cut")
    resumed.run()
    assert_equal(final_weights(resumed), final_weights(whole))


def train_until(images, folder, moment):
    """A training that is killed at a step, or in the middle of writing a checkpoint, and resumed if it was before."""
    run = trainer(images, folder / "state", gamma=0.1, classes={7: 1, 40: 2}, steps=20, validate_every=5)
    draw, write = run.sampler.batch, checkpoint.save_file

    def batch(step, *which):
        if moment == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return draw(step, *which)

    def save_file(tensors, path, metadata):
        write(tensors, path, metadata)
        if moment == "writing":
            Path(path).write_bytes(Path(path).read_bytes()[:1000])
            os.kill(os.getpid(), signal.SIGKILL)

    run.sampler.batch, checkpoint.save_file = batch, save_file
    result = run.run()
    tensors = result.weights | {"last." + name: value for name, value in run.module.state_dict().items()}
    checkpoint.save_tensors(folder / "weights.safetensors", tensors, {})


@pytest.mark.slow
def test_a_training_killed_again_and_again_ends_with_the_very_same_bytes(images, tmp_path):
    moments = [*sorted(np.random.default_rng().integers(1, 20, 3).tolist()), "writing"]
    ends = []
    for name, moment in [("whole", "never"), *(("killed", moment) for moment in [*moments, "never"])]:
        process = forked(train_until, images, tmp_path / name, moment)
        process.join(timeout=300)
        ends.append(process.exitcode)
    assert ends == [0, *[-signal.SIGKILL] * len(moments), 0], moments
    whole, killed = (tmp_path / name / "weights.safetensors" for name in ("whole", "killed"))
    assert killed.read_bytes() == whole.read_bytes(), moments
    left = {path.name for path in (tmp_path / "killed" / "state").iterdir()}
    assert left == {"checkpoint.safetensors", "history.csv", "lock"}


#: Number of glibc's option for the size from which memory is taken from the system and given back at once.
M_MMAP_THRESHOLD = -3


def measure_step(method, side, found):
    """Write the estimate of a step's memory, and what the system counts, to a file."""
    settings = {"transmorph": {"size": "tiny", "norm": "instance", "time_steps": 2}}.get(method, {})
    method = make_method(method, settings)
    method.fit_to([side] * 3)
    module = method.build(3)

    def field(name):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024

    batch = {name: torch.rand(1, 1, *[side] * 3) for name in ("fixed", "moving")}
    estimate = memory.step_bytes(method, module, [side] * 3, 1)  # warms up, too
    libc = ctypes.CDLL(None)
    libc.mallopt(M_MMAP_THRESHOLD, 128 << 10)  # as in a fresh process, whatever this one has been told or learnt
    libc.malloc_trim(0)
    before = field("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    method.training_step(module, batch)["total"].backward()
    found.write_text(f"{estimate} {field('VmHWM') - before}")


@pytest.mark.slow
@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="glibc on Linux says what was used at most")
@pytest.mark.parametrize(("method", "side", "factor"), [("voxelmorph", 64, 1.5), ("transmorph", 96, 1.6)])
def test_the_memory_of_a_step_in_3d_is_known_beforehand(tmp_path, method, side, factor):
    """Up to what kernels take for themselves, which is more with many small layers."""
    forked(measure_step, method, side, tmp_path / "found").join(timeout=300)
    estimate, measured = map(int, (tmp_path / "found").read_text().split())
    assert measured / factor < estimate < factor * measured


@pytest.mark.slow
def test_more_pairs_voxels_and_width_need_more_memory_and_less_precision_less():
    def estimate(shape=(64, 64), size=1, **settings):
        method = make_method("voxelmorph", settings)
        return memory.step_bytes(method, method.build(len(shape)), shape, size)

    sixteen = estimate(size=16)
    assert estimate(size=48) - sixteen == pytest.approx(2 * (sixteen - estimate(size=0)), rel=0.01)
    assert estimate(shape=(256, 256)) == sixteen
    assert estimate(size=16, precision="bfloat16") < 0.8 * sixteen
    assert estimate(size=0, width=2) > 3.5 * estimate(size=0)


def test_a_training_that_cannot_fit_is_refused_before_it_starts(images, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(memory, "free_bytes", lambda device: 2 << 20)
    monkeypatch.setattr("regcore.training.trainer.step_bytes", memory.step_bytes)  # other tests share an estimate
    run = trainer(images, tmp_path, batch_size=64)
    with pytest.raises(InputError, match=r"would take about \d+ MiB of memory, but the machine has 2 MiB free; lower"):
        run.run()
    assert run.step == 0


@pytest.mark.slow
def test_a_study_trains_on_chosen_subjects_and_knows_its_training_dice(tmp_path):
    settings = {"method": "voxelmorph", "gamma": 0.5, "training_subjects": 3, "batch_size": 2, **SETTINGS}
    too_fast = {"learning_rate": 0.1, "validate_every": 1, "schedule": "constant"}  # so that the last is not the best
    plan = prepared(small_study(tmp_path, {"net": settings | too_fast}))
    chosen = list(plan.entries["net"].training_pairs)
    assert len(chosen) == 6 and len(plan.scans) == 7
    train(plan, "net", tmp_path / "model", tmp_path / "checkpoints")
    model = load_model(tmp_path / "model")
    assert (model.facts["steps"], model.facts["stopped_early"], model.facts["processes"]) == (12, False, 1)
    assert model.facts["best_step"] < 12
    assert model.facts["training_dice"] == pytest.approx(np.mean([dice_by_hand(plan, model, *pair) for pair in chosen]))
    validation = [dice_by_hand(plan, model, *pair) for pair in plan.pairs_of("validation")[["fixed", "moving"]].values]
    assert model.facts["best_validation_dice"] == pytest.approx(np.mean(validation))
    assert "label_dice" in pd.read_csv(tmp_path / "model" / "history.csv")
    assert not (tmp_path / "checkpoints" / "checkpoint.safetensors").exists()


def test_training_scans_need_no_labels_unless_the_method_looks_at_them(tmp_path):
    plan = prepared(small_study(tmp_path, {"net": {"method": "voxelmorph", **SETTINGS}}, unlabelled=range(5)))
    train(plan, "net", tmp_path / "model", tmp_path / "checkpoints")
    assert load_model(tmp_path / "model").facts["training_dice"] is None
    with pytest.raises(InputError, match=r"methods.net: this training needs labels, but 1 .*'s3_1_T1w'"):
        small_study(tmp_path, {"net": {"method": "voxelmorph", "gamma": 0.1}}, unlabelled=[3])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"training_subjects": 6}, r"methods.net.training_subjects: 6 subjects are requested, but the cohort has 5"),
        ({"batch_size": 3, "accumulate": 2}, r"methods.net: a 'batch_size' of 3 cannot be split"),
    ],
)
def test_a_training_that_cannot_be_is_not_planned(tmp_path, settings, message):
    with pytest.raises(InputError, match=message):
        small_study(tmp_path, {"net": {"method": "voxelmorph", **settings}})
