"""Several processes: the same training as one, resumed as one, and one message for a mistake.

Workers import this module by name, so that what they run can be sent to them.
"""

import os
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from support.forks import quick_python
from support.marks import marks_its_tests
from support.paths import TESTS
from support.studies import prepared, small_study

from regcore.errors import DivergedError, InputError
from regcore.methods import make_method
from regcore.methods.settings.training import TrainingSettings
from regcore.models.trained import load_model
from regcore.study.stages.train import train
from regcore.training.batch_division import check_division, dividing
from regcore.training.checkpoint import load_tensors
from regcore.training.distributed import PROCESSES_VARIABLE, Processes, launch, process_group, wanted_processes
from regcore.training.pairs import PairSampler
from regcore.training.trainer import Trainer

SETTINGS = {
    "gamma": 0.1,
    "batch_size": 4,
    "steps": 8,
    "validate_every": 1,
    "learning_rate": 1e-3,
    "lambda": 0.01,
    "schedule": "cosine",
}


@pytest.fixture(scope="module", autouse=True)
def importable():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), str(TESTS / "training")]))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        yield


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    return prepared(small_study(folder, {"net": {"method": "voxelmorph", **SETTINGS}}))


def run(plan, folder, processes=None, stop_after=None, end_at=None, **changes):
    """Train in the processes that there are; each look at the validation pairs finds something better.

    ``end_at`` is the look at which the watch of the training ends it.
    """
    processes = processes or Processes()
    method = make_method("voxelmorph", SETTINGS | {"patience": 2} | changes)
    scans = plan.entries["net"].training_pairs
    sampler = PairSampler(scans, {scan: plan.prepared(scan) for scan in scans.scans}, seed=3, classes={1: 1})
    draw = sampler.batch

    def interrupted(step, *which):
        if step == stop_after:
            raise InputError(f"stopped at step {step}")
        return draw(step, *which)

    sampler.batch = interrupted

    def better(module):
        return {"dice": trainer.step}

    def watch(look, dice):
        assert processes.first
        return look == end_at

    trainer = Trainer(method, sampler, better, folder, "same", 2, 5, "cpu", processes, watch if end_at else None)
    trained = trainer.run()
    assert trainer.ended == (end_at is not None)
    assert trained.facts["processes"] == processes.count
    assert bool(trained.weights) == processes.first


def whole_ended_and_stopped(plan, folder):
    """Three trainings in the same processes: the last ends with a mistake."""
    with process_group() as processes:
        assert processes.count == 2
        run(plan, folder / "whole", processes)
        run(plan, folder / "ended", processes, end_at=1)
        run(plan, folder / "stopped", processes, stop_after=5)


def resumed_and_diverging(plan, folder):
    """The training that stopped goes on in processes of its own, which then diverge in another one."""
    with process_group() as processes:
        assert processes.count == 2
        run(plan, folder / "stopped", processes)
        run(plan, folder / "diverging", processes, learning_rate=1e12)


def launch_two(function, *arguments):
    """In processes that start at once, as what torchrun runs is forked from a process that has loaded torch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", quick_python())
        launch(2, function, *arguments)


def fail():
    raise ZeroDivisionError("no such luck")


def curve_and_weights(folder):
    tensors, _ = load_tensors(folder / "checkpoint.safetensors")
    history = pd.read_csv(folder / "history.csv")
    return history, {name: value for name, value in tensors.items() if name.startswith("best.")}


@pytest.fixture(scope="module")
@marks_its_tests("slow")
def together(plan, tmp_path_factory):
    """What two processes leave, and the message of the mistake that they end with."""
    folder = tmp_path_factory.mktemp("together")
    with pytest.raises(InputError) as mistake:
        launch_two(whole_ended_and_stopped, plan, folder)
    return folder, str(mistake.value)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_processes_train_as_one(plan, together, tmp_path, accumulate):
    run(plan, tmp_path, accumulate=accumulate)
    (one, weights), (two, same) = curve_and_weights(tmp_path), curve_and_weights(together[0] / "whole")
    assert list(one["step"]) == list(two["step"]) == list(range(1, 9))
    for column in ("total", "mse", "label_dice", "learning_rate"):
        np.testing.assert_allclose(two[column], one[column], rtol=1e-4)
    assert weights.keys() == same.keys() and weights
    for name, value in weights.items():
        torch.testing.assert_close(same[name], value, rtol=0, atol=1e-5)


def test_all_processes_end_where_the_first_ones_watch_says_so(together):
    history, _ = curve_and_weights(together[0] / "ended")
    assert len(history) == 1


def test_two_processes_resume_and_mistakes_and_divergence_in_them_are_told_plainly(plan, together):
    folder, mistake = together
    assert mistake == "stopped at step 5"
    assert len(pd.read_csv(folder / "stopped" / "history.csv")) == 5
    with pytest.raises(DivergedError, match="training diverged"):
        launch_two(resumed_and_diverging, plan, folder)
    (history, weights), (whole, expected) = (curve_and_weights(folder / name) for name in ("stopped", "whole"))
    assert list(history["total"]) == list(whole["total"])
    assert all(torch.equal(weights[name], value) for name, value in expected.items())


@pytest.mark.slow
def test_another_failure_brings_its_traceback():
    with pytest.raises(RuntimeError, match="ZeroDivisionError: no such luck"):
        launch_two(fail)


@pytest.mark.slow
def test_the_training_stage_starts_as_many_processes_as_it_is_told(plan, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv(PROCESSES_VARIABLE, "2")
    caplog.set_level("INFO", logger="regcore")
    train(plan, "net", tmp_path / "model", tmp_path / "checkpoints")
    facts = load_model(tmp_path / "model").facts
    assert facts["processes"] == 2 and facts["steps"] == 8 and facts["training_dice"] > 0
    said = [record.getMessage() for record in caplog.records]
    assert sum("done: 8 steps" in line for line in said) == 1, "the first process alone speaks"
    assert not (tmp_path / "checkpoints" / "checkpoint.safetensors").exists()


def test_the_number_of_processes_must_divide_the_batch(monkeypatch):
    settings = TrainingSettings.read({"batch_size": 12, "accumulate": 2}, "methods.x")
    monkeypatch.setenv(PROCESSES_VARIABLE, "4")
    with pytest.raises(InputError, match=r"methods.x: .* 12 .* 'accumulate: 2' and 4 processes; .* multiple of 8"):
        wanted_processes(settings, "methods.x")
    for wrong in ("0", "two", "-1"):
        monkeypatch.setenv(PROCESSES_VARIABLE, wrong)
        with pytest.raises(InputError, match="not a number of processes"):
            wanted_processes(settings)
    monkeypatch.setenv(PROCESSES_VARIABLE, "3")
    assert wanted_processes(settings) == 3
    monkeypatch.delenv(PROCESSES_VARIABLE)
    for gpus, expected in ((0, 1), (1, 1), (2, 2), (4, 3), (8, 6)):
        monkeypatch.setattr(torch.cuda, "device_count", lambda count=gpus: count)
        assert wanted_processes(settings) == expected
    one = TrainingSettings.read({"batch_size": 1, "accumulate": 1}, "methods.x")
    assert dividing(one, 8) == 1
    with pytest.raises(InputError, match="for 2 processes; choose a multiple of 2"):
        check_division(one, 2)
