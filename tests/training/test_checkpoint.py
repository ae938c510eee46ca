"""Checkpoints: what is saved comes back, for the same work alone, and torn files go."""

import pytest
import torch
from safetensors import safe_open

from regcore.errors import InputError
from regcore.training.checkpoint import Checkpoint, exclusive
from regcore.training.optimiser import load_optimiser, make_optimiser, optimiser_state


def test_sections_and_facts_come_back(tmp_path):
    checkpoint = Checkpoint(tmp_path / "new" / "x.safetensors", "mine")
    assert checkpoint.load() is None
    sections = {
        "model": {"a.weight": torch.arange(3.0)},
        "model.extra": {"b": torch.ones(2)},
        "best": {},
        "optimiser": {"0.step": torch.tensor(4.0)},
    }
    checkpoint.save(sections, {"step": 4, "rows": [{"loss": 0.5}]})
    saved = checkpoint.load()
    assert saved.facts == {"step": 4, "rows": [{"loss": 0.5}]}
    assert torch.equal(saved.section("model")["a.weight"], torch.arange(3.0))
    assert list(saved.section("optimiser")) == ["0.step"] and saved.section("best") == saved.section("mod") == {}
    with safe_open(checkpoint.path, "pt") as file:
        assert set(file.keys()) == {"model.a.weight", "model.extra.b", "optimiser.0.step"}
    checkpoint.remove()
    assert checkpoint.load() is None


def test_what_was_saved_for_other_work_is_not_loaded(tmp_path, caplog):
    caplog.set_level("INFO", logger="regcore")
    Checkpoint(tmp_path / "x.safetensors", "mine").save({}, {"step": 1})
    assert Checkpoint(tmp_path / "x.safetensors", "yours").load() is None
    assert "x.safetensors belongs to other settings or data; starting from the beginning" in caplog.text


def test_a_checkpoint_that_is_no_tensor_file_is_named(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"no")
    with pytest.raises(InputError, match=r"x\.safetensors: not a readable"):
        Checkpoint(tmp_path / "x.safetensors", "mine").load()


def test_who_holds_a_folder_clears_what_was_torn_there(tmp_path):
    """The training curve as well as the checkpoint."""
    for name in (".77.checkpoint.safetensors", ".77.history.csv", "checkpoint.safetensors", "history.csv"):
        (tmp_path / name).touch()
    with exclusive(tmp_path):
        assert {path.name for path in tmp_path.iterdir()} == {"checkpoint.safetensors", "history.csv", "lock"}


def test_nothing_is_cleared_in_a_folder_that_another_one_holds(tmp_path):
    with exclusive(tmp_path):
        (tmp_path / ".77.checkpoint.safetensors").touch()
        with pytest.raises(InputError, match="another process"), exclusive(tmp_path):
            pass
        assert (tmp_path / ".77.checkpoint.safetensors").exists()


@pytest.mark.parametrize("name", ["adam", "muon"])
def test_an_optimiser_goes_on_with_its_state(name):
    def steps(weights, optimiser, count):
        for _ in range(count):
            for weight in weights:
                weight.grad = weight.detach().sin() + 0.1
            optimiser.step()

    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(shape, generator=generator) for shape in ((4, 3), (5,))]
    whole = [torch.nn.Parameter(value.clone()) for value in start]
    optimiser = make_optimiser(whole, name, 0.1)
    steps(whole, optimiser, 3)
    resumed = [torch.nn.Parameter(weight.detach().clone()) for weight in whole]
    fresh = make_optimiser(resumed, name, 0.1)
    load_optimiser(fresh, {key: value.clone() for key, value in optimiser_state(optimiser).items()})
    steps(whole, optimiser, 2)
    steps(resumed, fresh, 2)
    assert all(torch.equal(one, other) for one, other in zip(whole, resumed, strict=True))
