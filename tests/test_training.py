"""Training: exact resume, checkpoints, locks, and models that rebuild themselves."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch

from regcore.errors import InputError
from regcore.methods import make_method
from regcore.methods.base import as_tensor
from regcore.training.checkpoint import exclusive, load_tensors, save_tensors
from regcore.training.model import load_model, save_model
from regcore.training.pairs import PairSampler
from regcore.training.trainer import Trainer
from regcore.volume import Grid, Volume, read_volume

SETTINGS = {"steps": 12, "validate_every": 4, "learning_rate": 1e-3, "lambda": 0.01, "schedule": "cosine"}
GRID = Grid.centred((32, 32), (1, 1), (0, 0))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Discs of different sizes."""
    folder = tmp_path_factory.mktemp("images")
    distance = np.linalg.norm(np.moveaxis(np.indices((32, 32)), 0, -1) - 15.5, axis=-1)
    paths = {}
    for radius in range(6, 12):
        paths[f"disc{radius}"] = folder / f"disc{radius}.nii"
        Volume(1 / (1 + np.exp(distance - radius)).astype("f4"), GRID).save(paths[f"disc{radius}"])
    return paths


def trainer(images, folder, fingerprint="same", stop_after=None, **changes):
    """A small training; ``stop_after`` raises KeyboardInterrupt in the middle of that step."""
    method = make_method("voxelmorph", SETTINGS | changes)
    names = sorted(images)
    sampler = PairSampler([(a, b) for a in names for b in names if a != b], images, seed=3)
    draw = sampler.batch

    def interrupted(step, size):
        if step == stop_after:
            raise KeyboardInterrupt
        return draw(step, size)

    sampler.batch = interrupted
    fixed, moving = as_tensor(read_volume(images["disc6"])), as_tensor(read_volume(images["disc11"]))

    def validate(module):
        displacement, _ = method.displacements(module, fixed, moving)
        return -float(displacement.square().mean())

    return Trainer(method, sampler, validate, folder, fingerprint, ndim=2, seed=5, device="cpu")


def final_weights(run):
    return {name: value.clone() for name, value in run.module.state_dict().items()}


def assert_equal(first, second):
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_an_interrupted_training_resumes_to_the_very_same_weights(images, tmp_path):
    whole = trainer(images, tmp_path / "whole")
    expected = whole.run()
    with pytest.raises(KeyboardInterrupt):
        trainer(images, tmp_path / "cut", stop_after=10).run()
    resumed = trainer(images, tmp_path / "cut")
    result = resumed.run()
    assert_equal(final_weights(resumed), final_weights(whole))
    assert_equal(result.weights, expected.weights)
    columns = ("step", "total", "mse", "diffusion", "validation_dice")
    assert [[row[c] for c in columns] for row in result.history] == [
        [row[c] for c in columns] for row in expected.history
    ]


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
    run.validate = lambda module: next(scores)
    result = run.run()
    assert result.facts["best_step"] == 8
    assert any(not torch.equal(result.weights[name], value) for name, value in final_weights(run).items())


def test_a_diverging_training_ends_with_a_remedy(images, tmp_path):
    run = trainer(images, tmp_path)
    step = run.method.training_step
    run.method.training_step = lambda module, batch: {k: v * torch.nan for k, v in step(module, batch).items()}
    with pytest.raises(InputError, match=r"diverged.*learning_rate"):
        run.run()


def test_the_loss_falls_on_a_pair_that_can_be_registered(images, tmp_path):
    history = trainer(images, tmp_path, steps=150, validate_every=50).run().history
    assert history[-1]["mse"] < 0.5 * history[0]["mse"]


def test_a_second_process_may_not_train_in_the_same_folder(tmp_path):
    code = f"""
        from regcore.errors import InputError
        from regcore.training.checkpoint import exclusive
        try:
            with exclusive({str(tmp_path)!r}):
                print("entered")
        except InputError as error:
            print(error)
    """
    with exclusive(tmp_path):
        done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert "another process is training here" in done.stdout
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
    reference = read_volume(images["disc8"])
    preprocess = {"affine": "none", "mask": False, "percentiles": [0.5, 99.5]}
    save_model(tmp_path / "model", "voxelmorph", run.method, trained, reference, GRID, preprocess)
    model = load_model(tmp_path / "model")
    assert model.preprocess == preprocess
    assert model.facts["parameters"] == sum(p.numel() for p in run.module.parameters())
    fixed, moving = read_volume(images["disc6"]), read_volume(images["disc11"])
    run.module.load_state_dict(trained.weights)
    expected, _ = run.method.displacements(run.module, as_tensor(fixed), as_tensor(moving))
    assert torch.equal(model.method.register(fixed, moving).field.displacement, expected.detach())
    with pytest.raises(InputError, match=r"no model\.json"):
        load_model(tmp_path)


def test_batches_depend_on_the_step_alone(images):
    names = sorted(images)
    pairs = [(a, b) for a in names for b in names if a != b]
    one, two = PairSampler(pairs, images, seed=1), PairSampler(pairs, images, seed=1)
    for step in (0, 1, 2):
        one.batch(step, 2)
    assert torch.equal(one.batch(7, 4)["fixed"], two.batch(7, 4)["fixed"])
    assert not torch.equal(one.batch(7, 4)["fixed"], one.batch(8, 4)["fixed"])
    assert one.batch(0, 4)["moving"].shape == (4, 1, 32, 32)
