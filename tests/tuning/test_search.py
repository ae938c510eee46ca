"""Bayesian optimisation: what a search may be asked, its storage, trials, workers that die, and the best model."""

import json
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
from optuna.trial import TrialState
from support.marks import marks_its_tests
from support.processes import forked
from support.studies import prepared, small_study

from regcore.errors import DivergedError, InputError
from regcore.methods import make_method
from regcore.models.trained import load_model
from regcore.study.entry import Entry
from regcore.study.plan import plan_study
from regcore.study.stages import tune
from regcore.study.stages.tune import collect, run_trial, store_of
from regcore.tuning.bayes import ATTEMPTS, JOURNAL, Bayes
from regcore.tuning.search import settled

FAST = {"method": "voxelmorph", "width": 0.25, "steps": 12, "validate_every": 2, "learning_rate": 0.01}
LAMBDA = {"ranges": {"lambda": [0.01, 1]}, "trials": 6, "workers": 2, "warmup": 1, "startup_trials": 2}


def searched(folder, **tuning):
    """A study with one search, its scans prepared."""
    return prepared(small_study(folder, {"vm": {**FAST, "tune": {**LAMBDA, **tuning}}}))


def run_slot(plan, slot):
    output = plan.files.search("vm") / "trials" / f"{slot:03d}.json"
    run_trial(plan, "vm", slot, output, plan.folder / "checkpoints" / "vm" / f"{slot:03d}")
    return json.loads(output.read_text())


def search(ranges, **more):
    """A search for VoxelMorph's hyperparameters."""
    values = {"method": "voxelmorph", "tune": {"ranges": ranges, **more}}
    return settled(Entry("x", values).search, make_method("voxelmorph"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"ranges": {"lambda": [1, 0.1]}}, r"x.tune.ranges.lambda: \[1, 0.1\] must ascend"),
        ({"ranges": {"lamda": [0, 1]}}, r"no hyperparameter 'lamda'; did you mean 'lambda'"),
        ({"ranges": {"lambda": [-1, 1]}}, r"lambda: -1 is less than the minimum of 0"),
        ({"ranges": {"lambda": {"low": 0, "high": 1, "log": True}}}, "logarithmic range must start above 0"),
        ({"ranges": {"lambda": [0, 1, 2]}}, r"give \[low, high\]"),
        ({"ranges": {"similarity": {"choices": ["mse", "ncc", "lncc"]}}}, "'ncc' is not possible"),
        ({"ranges": {"flow_resolution": [1, 2]}}, r"flow_resolution: give \{choices: \[…\]\} of \[1, 2\]"),
        ({"ranges": {"training_subjects": [2, 9]}}, "'training_subjects' must be the same in all trials"),
        ({"ranges": {"steps": [1, 9]}}, "'steps' must be the same in all trials"),
        ({"ranges": {"lambda": [0, 1]}, "sampler": "grid"}, r"a grid needs \{choices"),
        ({"ranges": {"lambda": {"choices": [0, 1]}}, "sampler": "grid", "trials": 3}, "3 is more than the 2 comb"),
        ({"ranges": {}}, "tune: ranges"),
        ({"trails": 3, "ranges": {"lambda": [0, 1]}}, "unknown key 'trails'; did you mean 'trials'"),
        ({}, "missing key 'ranges'"),
    ],
)
def test_a_search_that_cannot_be_done(values, message):
    with pytest.raises(InputError, match=message):
        Entry("x", {"method": "voxelmorph", "tune": values}).check()


@pytest.mark.parametrize(
    ("method", "ranges", "message"),
    [
        ("spr", {"sigma": [0, 1]}, "'sigma' has no effect with the method's other settings"),
        ("spr", {"width": [1, 2]}, "'width' has no effect"),
        ("hypermorph", {"window": [3, 9]}, "must be whole"),
    ],
)
def test_ranges_that_a_method_has_no_use_for(method, ranges, message):
    with pytest.raises(InputError, match=message):
        Entry("x", {"method": method, "similarity": "lncc", "tune": {"ranges": ranges}}).check()


def test_a_search_of_gamma_needs_labels(tmp_path):
    chosen = {**FAST, "tune": {"ranges": {"gamma": [0, 1]}}}
    with pytest.raises(InputError, match="training needs labels"):
        small_study(tmp_path, {"vm": chosen}, unlabelled=[0])


def test_what_is_set_is_not_searched():
    with pytest.raises(InputError, match="'lambda' is set as well"):
        _ = Entry("x", {"method": "voxelmorph", "lambda": 1, "tune": {"ranges": {"lambda": [0, 1]}}}).search


def test_no_search_is_asked_for_by_null(tmp_path):
    assert small_study(tmp_path, {"vm": {**FAST, "tune": None}}).entries["vm"].search is None


def test_only_trained_methods_are_searched(tmp_path):
    with pytest.raises(InputError, match=r"methods.syn.tune: 'syn' is not trained"):
        small_study(tmp_path, {"syn": {"tune": {"ranges": {"iterations": [1, 2]}}}})


def test_a_plan_checks_its_searches(tmp_path):
    with pytest.raises(InputError, match="must ascend"):
        small_study(tmp_path, {"vm": {**FAST, "tune": {"ranges": {"lambda": [1, 0]}}}})


def test_looks_without_pruning_are_shares_of_a_training():
    chosen = {"method": "voxelmorph", "steps": 5000, "validate_every": 10, "tune": {"ranges": {"lambda": [0, 1]}}}
    found = settled(Entry("x", chosen).search, Entry("x", chosen).made)
    assert (found.warmup, found.interval, found.trials, found.startup_trials) == (30, 10, 50, 5)
    short = settled(Entry("x", chosen).search, Entry("x", {**chosen, "steps": 40}).made)
    assert (short.warmup, short.interval) == (1, 1)


def test_whole_numbers_and_choices():
    found = search(
        {"window": [3, 9], "lambda": {"low": 0.01, "high": 1, "log": True}, "flips": {"choices": [True, False]}}
    )
    assert found.ranges["window"].as_dict() == {"low": 3, "high": 9, "log": False}
    assert found.ranges["lambda"].log and found.whole == ("window",)
    assert found.ranges["flips"].as_dict() == {"choices": [True, False]}


@pytest.mark.parametrize(
    ("method", "ranges"),
    [
        ("synthmorph", {"b_sigma": [6, 25], "b_K": [0.5, 2]}),
        ("spr", {"lambda_max": [0.5, 5], "alpha": [0, 0.2]}),
        ("transmorph", {"lambda": [0, 2], "time_steps": [1, 7]}),
        ("hypermorph", {"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}}),
    ],
)
def test_any_methods_hyperparameters_can_be_searched(method, ranges):
    Entry("x", {"method": method, "tune": {"ranges": ranges}}).check()


def test_a_grid_tries_all_combinations(tmp_path):
    plan = searched(
        tmp_path,
        ranges={"lambda": {"choices": [0.1, 1]}, "window": {"choices": [3, 5, 7]}},
        sampler="grid",
        trials=None,
    )
    bayes = store_of(plan, "vm").open()
    points = [bayes.claim(slot).params for slot in range(plan.entries["vm"].search.trials)]
    assert sorted((p["lambda"], p["window"]) for p in points) == [(a, b) for a in (0.1, 1) for b in (3, 5, 7)]


@pytest.fixture(scope="module")
@marks_its_tests("slow")
def finished(tmp_path_factory):
    """A study whose search has ended."""
    plan = searched(tmp_path_factory.mktemp("search"))
    outputs = [run_slot(plan, slot) for slot in range(6)]
    collect(plan, "vm", plan.folder / "models" / "vm")
    return plan, outputs


def test_the_best_trials_model_is_the_entrys(finished):
    plan, outputs = finished
    done = [facts for facts in outputs if facts["state"] == "complete"]
    best = max(done, key=lambda facts: facts["value"])
    model = load_model(plan.folder / "models" / "vm")
    assert model.method.settings.lambda_ == best["params"]["lambda"]
    assert model.facts["best_validation_dice"] == best["value"] == max(best["dice_at_looks"].values())
    assert list(best["dice_at_looks"]) == ["1", "2", "3", "4", "5", "6"]
    assert 0.01 <= best["params"]["lambda"] <= 1


def test_only_the_best_trials_weights_stay_on_disk(finished):
    plan, outputs = finished
    best = max((facts for facts in outputs if facts["state"] == "complete"), key=lambda facts: facts["value"])
    kept = [folder.name for folder in (plan.files.search("vm") / "models").iterdir()]
    assert kept == [f"{best['slot']:03d}"]
    assert not list((plan.folder / "checkpoints" / "vm").rglob("*.safetensors"))


def test_the_table_has_a_row_for_each_trial(finished):
    plan, outputs = finished
    table = pd.read_csv(plan.folder / "models" / "vm" / "trials.csv")
    assert list(table["slot"]) == list(range(6)) and table["trial"].is_unique
    assert list(table["value"].round(9)) == [round(facts["value"], 9) for facts in outputs]
    found = json.loads((plan.folder / "models" / "vm" / "search.json").read_text())
    assert found["trials"] == 6 and found["pruned"] == (table["state"] == "pruned").sum() and found["failed"] == 0
    assert found["steps"] == table["steps"].sum()
    pruned = table[table["state"] == "pruned"]
    assert (table.loc[table["state"] == "complete", "steps"] == 12).all() and (pruned["steps"] < 12).all()


def test_a_finished_slot_is_not_trained_again(finished, monkeypatch):
    plan, outputs = finished
    monkeypatch.setattr(tune, "train", lambda *_: pytest.fail("trained again"))
    assert run_slot(plan, 2) == outputs[2]


def test_more_trials_go_on_from_those_that_are_there(finished, tmp_path):
    plan, _ = finished
    config = {key: value for key, value in plan.config.items() if key != "unavailable"}
    config["methods"]["vm"]["tune"]["trials"] = 7
    longer = plan_study(config, results=str(plan.folder.parent))
    assert run_slot(longer, 6)["trial"] == 6
    bayes = store_of(longer, "vm").open()
    assert len(bayes.finished()) == 7
    assert len(store_of(plan, "vm").open().finished()) == 6


def test_the_storage_opens_like_any_other(finished):
    """As optuna-dashboard opens it."""
    plan, _ = finished
    backend = optuna.storages.journal.JournalFileBackend(str(plan.files.search("vm") / JOURNAL))
    study = optuna.load_study(study_name="vm", storage=optuna.storages.JournalStorage(backend))
    assert study.direction.name == "MAXIMIZE" and len(study.trials) >= 6


def test_a_model_that_was_deleted_is_trained_again_by_its_slot(finished, tmp_path):
    plan, outputs = finished
    best = max((facts for facts in outputs if facts["state"] == "complete"), key=lambda facts: facts["value"])
    before = load_model(plan.folder / "models" / "vm")
    shutil.rmtree(plan.files.search("vm") / "models")
    with pytest.raises(
        InputError, match=rf"model is gone; delete .*trials/{best['slot']:03d}.json and run the study again"
    ):
        collect(plan, "vm", tmp_path / "again")
    run_slot(plan, best["slot"])
    collect(plan, "vm", tmp_path / "again")
    assert load_model(tmp_path / "again").facts["best_validation_dice"] == before.facts["best_validation_dice"]


def test_a_journal_of_other_settings_is_not_used(finished):
    plan, _ = finished
    config = {key: value for key, value in plan.config.items() if key != "unavailable"}
    config["methods"]["vm"]["tune"]["ranges"] = {"lambda": [0.01, 2]}
    other = plan_study(config, results=str(plan.folder.parent))
    with pytest.raises(InputError, match=r"study.journal: its trials were made with other ranges, settings or scans"):
        run_slot(other, 0)


def test_a_journal_of_another_search_is_not_used(finished):
    plan, _ = finished
    with pytest.raises(InputError, match=r"study.journal: belongs to the search 'vm', not 'other'"):
        Bayes(plan.files.search("vm"), "other", plan.entries["vm"].search, "x", 0)


@pytest.mark.slow
def test_one_worker_finds_the_same_twice(tmp_path):
    found = []
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        plan = searched(folder, trials=3, random_trials=1)
        found.append([(facts["params"], facts["value"]) for facts in (run_slot(plan, slot) for slot in range(3))])
    assert found[0] == found[1]


def test_a_training_that_ended_unsaid_is_not_repeated(tmp_path, monkeypatch):
    """Its process was killed between the model and the trial's end."""
    plan = searched(tmp_path, trials=1)
    before = tune._finish
    monkeypatch.setattr(tune, "_finish", lambda *_: sys.exit("killed"))
    with pytest.raises(SystemExit):
        run_slot(plan, 0)
    monkeypatch.setattr(tune, "_finish", before)
    monkeypatch.setattr(tune, "train", lambda *_: pytest.fail("trained again"))
    assert run_slot(plan, 0)["state"] == "complete"
    assert not list((plan.folder / "checkpoints" / "vm" / "000").glob("trial-*"))


def test_values_that_training_diverges_with_are_replaced(tmp_path, monkeypatch):
    plan = searched(tmp_path, trials=1)
    train, seen = tune.train, []

    def unlucky(plan, name, folder, checkpoints, point, watch):
        seen.append(point["lambda"])
        if len(seen) == 1:
            raise DivergedError("training diverged")
        train(plan, name, folder, checkpoints, point, watch)

    monkeypatch.setattr(tune, "train", unlucky)
    facts = run_slot(plan, 0)
    assert len(set(seen)) == 2 and facts["params"]["lambda"] == seen[1]
    states = [trial.state for trial in store_of(plan, "vm").open().trials()]
    assert states == [TrialState.FAIL, TrialState.COMPLETE]


def test_what_is_no_fault_of_the_values_leaves_the_trial_as_it_is(tmp_path, monkeypatch):
    """Too little memory, or another process in the folder: when that is mended the slot goes on."""
    plan, train = searched(tmp_path, trials=1), tune.train

    def full(*_):
        raise InputError("the GPU is full")

    monkeypatch.setattr(tune, "train", full)
    for _ in range(ATTEMPTS + 1):
        with pytest.raises(InputError, match="the GPU is full"):
            run_slot(plan, 0)
    monkeypatch.setattr(tune, "train", train)
    assert run_slot(plan, 0)["trial"] == 0


def test_a_point_of_a_grid_that_diverges_is_given_up(tmp_path, monkeypatch):
    plan = searched(tmp_path, ranges={"lambda": {"choices": [0.1, 1]}}, sampler="grid", trials=None)
    train = tune.train

    def unlucky(plan, name, folder, checkpoints, point, watch):
        if point["lambda"] == 1:
            raise DivergedError("training diverged")
        train(plan, name, folder, checkpoints, point, watch)

    monkeypatch.setattr(tune, "train", unlucky)
    assert [run_slot(plan, slot)["state"] for slot in (0, 1)] == ["complete", "fail"]
    collect(plan, "vm", tmp_path / "model")
    assert json.loads((tmp_path / "model" / "search.json").read_text())["failed"] == 1


def test_a_model_of_a_journal_that_is_gone_is_not_taken_over(tmp_path):
    plan = searched(tmp_path, trials=1)
    run_slot(plan, 0)
    model = plan.files.search("vm") / "models" / "000" / "model.json"
    model.write_text(model.read_text().replace("best_validation_dice", "something_else"))
    (plan.files.search("vm") / JOURNAL).unlink()
    assert run_slot(plan, 0)["state"] == "complete"


def test_the_journals_lock_leads_to_the_journal_where_its_path_is_relative(tmp_path, monkeypatch):
    """As in the workflow; a lock that leads nowhere is waited for for ever once its process was killed."""
    monkeypatch.chdir(tmp_path)
    bayes = Bayes(Path("search"), "x", search({"lambda": [0, 1]}), "i", 0)
    backend = bayes.storage._backend
    assert Path(backend._lock._lock_target_file).is_absolute()
    backend._lock.acquire()
    assert Path(backend._lock._lock_file).resolve() == (tmp_path / "search" / JOURNAL)
    backend._lock.release()


def test_two_processes_do_not_delete_each_others_best(tmp_path):
    plan = searched(tmp_path, trials=3)
    store = store_of(plan, "vm")
    one, other = store.open(), store.open()
    for slot, (bayes, dice) in enumerate(((one, 0.5), (other, 0.6))):
        claim = bayes.claim(slot)
        store.model(slot).mkdir(parents=True)
        bayes.complete(claim.number, dice, {})
    for bayes in (one, other):
        assert tune._keep_best(store, bayes).value == 0.6
    assert [folder.name for folder in (store.folder / "models").iterdir()] == ["001"]


def test_a_slot_gives_up_after_some_failures(tmp_path, monkeypatch):
    plan = searched(tmp_path, trials=1)

    def hopeless(*_):
        raise DivergedError("training diverged at step 3")

    monkeypatch.setattr(tune, "train", hopeless)
    with pytest.raises(InputError, match=rf"{ATTEMPTS} trainings of slot 0 failed.*diverged at step 3"):
        run_slot(plan, 0)


def test_a_trial_without_a_slot_is_given_up(tmp_path):
    """Its process was killed in the moment between asking and writing the slot."""
    plan = searched(tmp_path, trials=1)
    bayes = store_of(plan, "vm").open()
    bayes.study.ask()
    claim = bayes.claim(0)
    assert claim.number == 1 and bayes.trials()[0].state == TrialState.FAIL


def test_fanova_finds_what_matters(tmp_path):
    """Of a value that depends on one of two hyperparameters alone."""
    chosen = search({"lambda": [0, 1], "image_sigma": [0.5, 1]}, trials=30, sampler="random", pruning=False)
    bayes = Bayes(tmp_path, "x", chosen, "i", 0)
    for slot in range(30):
        claim = bayes.claim(slot)
        bayes.complete(claim.number, 1 - (claim.params["lambda"] - 0.4) ** 2, {})
    found = bayes.importances()
    assert found["lambda"] > 0.9 and abs(sum(found.values()) - 1) < 1e-6


@pytest.mark.slow
def test_tpe_comes_closer_than_chance(tmp_path):
    """To the top of a smooth hill, in the median of several searches."""
    ends = {}
    for sampler in ("tpe", "random"):
        ends[sampler] = []
        for seed in range(7):
            chosen = search({"lambda": [0, 1], "image_sigma": [0.5, 1.5]}, trials=30, sampler=sampler, pruning=False)
            bayes = Bayes(tmp_path / f"{sampler}{seed}", "x", chosen, "i", seed)
            for slot in range(30):
                claim = bayes.claim(slot)
                away = (claim.params["lambda"] - 0.3) ** 2 + (claim.params["image_sigma"] - 1.2) ** 2
                bayes.complete(claim.number, -away, {})
            ends[sampler].append(bayes.best().value)
    assert np.median(ends["tpe"]) > np.median(ends["random"])


def test_the_median_pruner_ends_what_is_worse(tmp_path):
    chosen = search({"lambda": [0, 1]}, trials=8, startup_trials=3, warmup=2, interval=1)
    bayes = Bayes(tmp_path, "x", chosen, "i", 0)
    for slot, height in enumerate((0.5, 0.6, 0.7)):
        claim = bayes.claim(slot)
        assert not any(bayes.report(claim.number, look, height) for look in range(1, 5))
        bayes.complete(claim.number, height, {})
    claim = bayes.claim(3)
    assert [bayes.report(claim.number, look, 0.55) for look in (1, 2)] == [False, True]
    better = bayes.claim(4)
    assert not any(bayes.report(better.number, look, 0.65) for look in range(1, 5))


def run_every_fourth_slot(plan, number):
    for slot in range(number, plan.entries["vm"].search.trials, 4):
        run_slot(plan, slot)


def looks_of_running(bayes):
    """Worker → looks of the trial that it is at."""
    running = [trial for trial in bayes.trials() if trial.state == TrialState.RUNNING and "slot" in trial.user_attrs]
    return {trial.user_attrs["slot"] % 4: len(trial.intermediate_values) for trial in running}


@pytest.mark.slow
def test_four_workers_of_which_two_are_killed(tmp_path):
    """Every slot ends with one finished trial, and the killed ones go on where they were."""
    plan = prepared(small_study(tmp_path, {"vm": {**FAST, "steps": 60, "tune": {**LAMBDA, "trials": 8}}}))
    bayes = store_of(plan, "vm").open()
    workers = {number: forked(run_every_fourth_slot, plan, number) for number in range(4)}
    killed, until = {}, time.monotonic() + 200
    while len(killed) < 2 and time.monotonic() < until:
        for number, looks in looks_of_running(bayes).items():
            if number in (1, 2) and number not in killed and 3 <= looks < 25:
                workers[number].kill()
                workers[number].join()
                killed[number] = {
                    t.number
                    for t in bayes.trials()
                    if t.state == TrialState.RUNNING and t.user_attrs.get("slot", 0) % 4 == number
                }
        time.sleep(0.02)
    assert set(killed) == {1, 2}
    for number in killed:
        workers[number] = forked(run_every_fourth_slot, plan, number)
    for worker in workers.values():
        worker.join(timeout=300)
    assert [worker.exitcode for worker in workers.values()] == [0] * 4
    trials = bayes.trials()
    assert sorted(trial.user_attrs["slot"] for trial in trials) == list(range(8))
    assert all(trial.state in (TrialState.COMPLETE, TrialState.PRUNED) for trial in trials)
    for numbers in killed.values():
        assert len(numbers) == 1 and trials[numbers.pop()].state in (TrialState.COMPLETE, TrialState.PRUNED)
    collect(plan, "vm", plan.folder / "models" / "vm")
    assert len(pd.read_csv(plan.folder / "models" / "vm" / "trials.csv")) == 8
