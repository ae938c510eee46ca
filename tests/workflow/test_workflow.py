"""The workflow: lint, plan, a whole small study, resuming, and one clear message for every mistake."""

import base64
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from support.marks import marks_its_tests
from support.paths import BIN, ROOT
from support.snakemake import environment, regcore_command, snakemake
from support.tools import missing, skip_without

from regcore.errors import InputError
from regcore.images.field import DisplacementField, read_field
from regcore.images.volume import Grid, Volume, read_labels, read_volume
from regcore.methods.requirements import niftyreg_folder
from regcore.study.plan import UNAVAILABLE, plan_study
from regcore.study.stages.register import facts_path, read_facts, register_pairs
from regcore.study.stages.score import evaluate_method

TINY = {
    "study": "tiny",
    "cohort": {"embedded": {"ndim": 2, "spacing": 3, "train": 3, "validation": 2, "test": 3}},
    "pairs": {"validation": 2, "test": 3},
    "methods": {
        "identity": None,
        "affine": None,
        "syn-short": {"method": "syn", "iterations": [20, 10]},
        "broken": {"method": "niftyreg", "bin_dir": str(ROOT / "tests" / "stubs")},
        "deeds": None,
        "voxelmorph": {"steps": 30, "validate_every": 10, "learning_rate": 0.001, "lambda": 0.01},
    },
}
RUN = {*TINY["methods"]} - {"deeds"}


@pytest.mark.workflow
def test_the_default_study_has_a_readable_plan(tmp_path):
    shutil.copytree(ROOT / "config", tmp_path / "config")
    done = snakemake(tmp_path, "-n", "--cores", "2", "--configfile", tmp_path / "config" / "config.yaml")
    assert done.returncode == 0, done.output
    assert "Exception" not in done.output and "Traceback" not in done.output
    counts = dict(re.findall(r"^(\w+) +(\d+)$", done.output, flags=re.MULTILINE))
    assert {"synthesise", "prepare", "train", "register", "evaluate", "write_report"} <= set(counts)
    absent = [tool for tool in ("greedy", "niftyreg", "dipy", "demons") if missing(tool)]
    assert counts["train"] == "2" and counts["evaluate"] == str(12 - len(absent))


@pytest.fixture(scope="module")
@marks_its_tests("workflow")
def study(tmp_path_factory):
    """A finished tiny study."""
    folder = tmp_path_factory.mktemp("study")
    done = snakemake(folder, "--cores", "2", config=TINY)
    assert done.returncode == 0, done.output
    assert "The report: results/tiny/report.html" in done.output
    assert "Exception" not in done.output and "Traceback" not in done.output
    return folder


def test_every_method_has_rows_for_every_pair(study):
    rows = pd.concat(pd.read_parquet(p) for p in sorted(study.glob("results/tiny/metrics/*.parquet")))
    identity = ["study", "method", "setting", "seed", "pair", "fixed", "moving", "contrasts"]
    assert list(rows.columns) == [*identity, "label", "metric", "value"]
    assert set(rows["method"]) == RUN | {"truth"}
    assert set(rows["contrasts"]) == {"T1w to T1w"}
    failed = rows[rows["metric"] == "failed"].groupby("method")["value"].agg(["sum", "count"])
    assert (failed["count"] == 3).all()
    assert failed["sum"].to_dict() == {**dict.fromkeys(RUN | {"truth"}, 0), "broken": 3}
    assert (rows[rows["metric"] == "folds_percent"].groupby("method")["pair"].nunique() == 3).all()
    measured = rows[rows["method"] == "syn-short"].groupby("metric")["value"].mean()
    costs = ["seconds_load", "seconds_compute", "seconds_save", "cpu_seconds", "peak_memory_mb"]
    assert (measured[costs] > 0).all() and (measured[["hd95_mm", "mean_surface_distance_mm"]] > 0).all()
    assert measured["ndv_percent"] == measured["ndp_percent"] == 0 and measured["correlation"] > 0.5
    error = rows[rows["metric"] == "true_error_mm"].groupby("method")["value"].mean()
    assert error["truth"] == 0
    assert error["syn-short"] < error["affine"] < error["identity"]
    dice = rows[rows["metric"] == "dice"].groupby("method")["value"].mean()
    assert dice["truth"] > dice["syn-short"] > dice["affine"]
    assert json.loads(rows.loc[rows["method"] == "syn-short", "setting"].iloc[0])["iterations"] == [20, 10]


def test_the_report_is_one_file_that_needs_no_network(study):
    page = (study / "results" / "tiny" / "report.html").read_text()
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)
    pictures = re.findall(r"data:image/png;base64,([^\"]+)", page)
    assert len(pictures) == 6  # boxes of Dice and HD95, the pairs of three methods, training curves
    assert all(base64.b64decode(p).startswith(b"\x89PNG") for p in pictures)
    for words in ("Dice by structure", "True error mm", "SyNOnly", "iterations", "torch 2.", "seed: 1", "truth"):
        assert words in page
    assert "it registers only 3-D images" in page, "deeds was not run"
    assert "ended with status 134" in page and "cannot allocate the control point grid" in page
    summary = pd.read_csv(study / "results" / "tiny" / "tables" / "summary.csv", index_col="method")
    assert f"{summary.loc['affine', 'dice_mean']:.3f}" in page
    assert summary.loc["voxelmorph", "training_seconds"] > 0


def test_fields_lie_on_the_native_fixed_grid_with_what_they_took(study):
    fields = sorted(study.glob("results/tiny/fields/voxelmorph/*/*.nii.gz"))
    assert len(fields) == 3
    fixed = fields[0].name.split("_")[0]
    image = read_volume(next(study.glob(f"results/tiny/cohort/*/{fixed}_T1w.nii.gz")))
    assert read_field(fields[0]).grid.same_as(image.grid)
    facts = json.loads(fields[0].with_name(fields[0].name.replace(".nii.gz", ".json")).read_text())
    assert facts["seconds"]["compute"] > 0 and facts["versions"]["torch"] and facts["failed"] is None


def test_a_tool_that_crashes_costs_its_pairs_and_not_the_study(study):
    folder = study / "results" / "tiny" / "fields" / "broken" / "part-00"
    facts = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    assert len(facts) == 3 and not list(folder.glob("*.nii.gz"))
    assert all("status 134" in one["failed"] and "cannot allocate" in one["failed"] for one in facts)
    assert (study / "results" / "tiny" / "figures" / "pairs_broken.png").exists()


def planned(output):
    """Rules of a run's jobs, from Snakemake's statistics."""
    return set(re.findall(r"^(\w+) +\d+$", output, flags=re.MULTILINE)) - {"all", "total"}


def test_fields_made_elsewhere_are_scored_like_any_other(study, tmp_path):
    """The fields of SyN under another name; of three one is damaged, and one is not there."""
    study = shutil.copytree(study, tmp_path / "study")
    elsewhere = study / "elsewhere"
    elsewhere.mkdir()
    fields = sorted(study.glob("results/tiny/fields/syn-short/*/*.nii.gz"))
    for path in fields[:2]:
        shutil.copy(path, elsewhere)
    (elsewhere / fields[1].name).write_bytes(fields[1].read_bytes()[:-500])
    pairs = pd.read_csv(study / "results" / "tiny" / "pairs.tsv", sep="\t")
    pairs.to_csv(elsewhere / "pairs.tsv", sep="\t", index=False)
    config = {**TINY, "methods": {**TINY["methods"], "theirs": {"method": "imported", "folder": "elsewhere"}}}
    done = snakemake(study, "--cores", "2", config=config)
    assert done.returncode == 0, done.output
    report = {"tables", "pictures", "write_report"}
    assert planned(done.output) == {"import_fields", "evaluate", *report}, "nothing is registered or trained again"
    rows = {name: pd.read_parquet(study / f"results/tiny/metrics/{name}.parquet") for name in ("theirs", "syn-short")}
    good = fields[0].name.removesuffix(".nii.gz")
    ours, theirs = (part[part["pair"] == good].dropna() for part in (rows["syn-short"], rows["theirs"]))
    same = theirs[theirs["metric"] != "failed"].merge(ours, on=["label", "metric"])
    assert len(same) > 10 and np.allclose(same["value_x"], same["value_y"], atol=1e-4)
    failed = rows["theirs"].query("metric == 'failed'").set_index("pair")["value"]
    assert failed.sum() == 2 and failed[good] == 0
    page = (study / "results" / "tiny" / "report.html").read_text()
    assert f"{fields[1].name}: truncated or damaged" in page and "no such file" in page


@pytest.fixture
def copied_plan(study, tmp_path, monkeypatch):
    """The plan of a copy of the study, in whose folder the test then runs."""
    shutil.copytree(study / "results", tmp_path / "results")
    monkeypatch.chdir(tmp_path)
    return plan_study(TINY)


def program(path, *lines):
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(["#!/bin/sh", *lines]) + "\n")
    path.chmod(0o755)


def with_tool(folder, time_limit):
    """The plan of the copied study with NiftyReg's programs in ``folder``."""
    methods = {"tool": {"method": "niftyreg", "bin_dir": str(folder)}}
    config = {**TINY, "methods": methods, "registration": {"time_limit": time_limit}}
    return plan_study(config)


def test_a_pair_that_a_tool_loses_does_not_cost_the_next(copied_plan, tmp_path):
    """reg_f3d crashes on its first call; on the second it is the real one."""
    skip_without("niftyreg")
    real = niftyreg_folder(None)
    crash = f"if [ ! -e {tmp_path}/crashed ]; then touch {tmp_path}/crashed; echo out of luck >&2; kill -SEGV $$; fi"
    program(tmp_path / "bin" / "reg_f3d", crash, f'exec "{real}/reg_f3d" "$@"')
    (tmp_path / "bin" / "reg_transform").symlink_to(real / "reg_transform")
    plan = with_tool(tmp_path / "bin", time_limit=100)
    pairs = list(plan.pairs_of("test")["pair"])[:2]
    register_pairs(plan, "tool", pairs, None)
    lost, kept = (read_facts(Path(plan.field("tool", pair))) for pair in pairs)
    assert "status -11" in lost["failed"] and "out of luck" in lost["failed"] and lost["commands"] == []
    assert not Path(plan.field("tool", pairs[0])).exists()
    assert kept["failed"] is None and kept["tool"].startswith("NiftyReg") and "reg_f3d -ref" in kept["commands"][0]
    assert read_field(plan.field("tool", pairs[1])).displacement.abs().max() > 0


def test_a_tool_that_hangs_is_stopped(copied_plan, tmp_path):
    program(tmp_path / "bin" / "reg_f3d", "echo thinking >&2; exec sleep 60")
    program(tmp_path / "bin" / "reg_transform", "exit 1")
    plan = with_tool(tmp_path / "bin", time_limit=8)
    pair = plan.pairs_of("test")["pair"][0]
    started = time.monotonic()
    register_pairs(plan, "tool", [pair], None)
    assert time.monotonic() - started < 30
    facts = read_facts(Path(plan.field("tool", pair)))
    assert facts["failed"] == "took longer than 8 s and was stopped"
    assert "thinking" in facts["stderr"]
    assert facts["seconds"] == {} and not Path(plan.field("tool", pair)).exists()


def spoil_field(kind, path):
    if kind == "missing":
        path.unlink()
    elif kind == "damaged":
        path.write_bytes(path.read_bytes()[:-500])
    elif kind == "on another grid":
        DisplacementField.identity(Grid.centred((20, 24), (3, 3), (0, 0))).save(path)
    elif kind == "without what it took":
        facts_path(path).unlink()


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", "no such file"),
        ("damaged", "truncated or damaged"),
        ("on another grid", "differ from the displacement's grid"),
        ("without what it took", r"\.json: missing or damaged"),
    ],
)
def test_a_field_that_cannot_be_scored_is_named_with_the_remedy(copied_plan, kind, words):
    path = Path(copied_plan.field("syn-short", copied_plan.pairs_of("test")["pair"][1]))
    spoil_field(kind, path)
    with pytest.raises(InputError, match=words) as told:
        evaluate_method(copied_plan, "syn-short")
    assert path.name.removesuffix(".nii.gz") in str(told.value)
    assert f"elete {path.parent} and run the study again" in str(told.value)


def test_a_label_that_no_scan_has_is_named_and_one_of_a_single_scan_scores_zero(copied_plan, caplog):
    caplog.set_level("WARNING")
    table = pd.read_csv(copied_plan.label_table, sep="\t")
    nowhere = {"index": 999, "name": "nowhere", "group": "cortex"}
    pd.concat([table, pd.DataFrame([nowhere])]).to_csv(copied_plan.label_table, sep="\t", index=False)
    pair = copied_plan.pairs_of("test").iloc[0]
    path = copied_plan.cohort.file(pair["moving"], "labels")
    moving, gone = read_labels(path), int(table["index"].iloc[0])
    moving.with_data(np.where(moving.data == gone, 0, moving.data)).save(path)
    rows = evaluate_method(copied_plan, "affine").set_index(["pair", "label", "metric"])["value"]
    assert "in no test scan" in caplog.text and "[999]" in caplog.text
    assert 999 not in rows.index.get_level_values("label")
    assert rows[pair["pair"], gone, "dice"] == 0
    assert np.isnan(rows[pair["pair"], gone, "hd95_mm"])


def test_a_second_run_has_nothing_to_do(study):
    done = snakemake(study, "--cores", "2", config=TINY)
    assert done.returncode == 0
    assert "Nothing to be done" in done.output


def test_time_stamps_and_comments_redo_nothing_and_an_edited_method_its_own_jobs(study, tmp_path, monkeypatch):
    shutil.copytree(ROOT / "regcore", tmp_path / "regcore", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    for script in (ROOT / "workflow" / "scripts").glob("*.py"):
        script.touch()
    method = tmp_path / "regcore" / "methods" / "voxelmorph.py"
    method.write_text(f"# a comment\n{method.read_text()}")
    done = snakemake(study, "-n", "--cores", "2", config=TINY, afresh=True)
    assert "Nothing to be done" in done.output, done.output
    method.write_text(f"{method.read_text()}\nEDITED = True\n")
    done = snakemake(study, "-n", "--cores", "2", config=TINY, afresh=True)
    counts = dict(re.findall(r"^(\w+) +(\d+)$", done.output, flags=re.MULTILINE))
    report = {"tables", "pictures", "training_curves", "write_report"}
    assert planned(done.output) == {"train", "register", "evaluate", *report}
    assert {counts[rule] for rule in ("train", "register", "evaluate", "pictures")} == {"1"}


def test_only_what_depends_on_a_changed_setting_runs_again(study):
    changed = {**TINY, "methods": {**TINY["methods"], "syn-short": {"method": "syn", "iterations": [20, 20]}}}
    done = snakemake(study, "-n", "--cores", "2", config=changed)
    counts = dict(re.findall(r"^(\w+) +(\d+)$", done.output, flags=re.MULTILINE))
    assert counts["register"] == "1" and counts["evaluate"] == "1"
    assert not {"synthesise", "prepare", "train"} & set(counts)


def test_a_report_can_be_made_again_without_registering_anything(study):
    done = snakemake(study, "-n", "--cores", "1", "--forcerun", "tables", "pictures", "training_curves", config=TINY)
    assert planned(done.output) == {"tables", "pictures", "training_curves", "write_report"}


def test_a_finished_study_becomes_a_page_of_results(study, tmp_path):
    script = ROOT / "benchmarks" / "study_table.py"
    command = [sys.executable, script, study / "results" / "tiny", tmp_path / "page"]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "page" / "README.md").read_text()
    summary = pd.read_csv(tmp_path / "page" / "summary.csv", index_col="method")
    assert f"| syn-short | {summary.loc['syn-short', 'dice_mean']:.3f} ± " in re.sub(" +", " ", page)
    assert "**syn-short**: antspyx" in page and "ants.registration(" in page and "**broken**" not in page


def test_scores_can_be_made_again_without_registering_anything(study):
    done = snakemake(study, "-n", "--cores", "1", "--forcerun", "evaluate", config=TINY)
    assert planned(done.output) == {"evaluate", "tables", "pictures", "write_report"}


def test_a_method_is_tried_again_where_its_fields_and_the_report_are_deleted(study, tmp_path):
    study = shutil.copytree(study, tmp_path / "study")
    shutil.rmtree(study / "results" / "tiny" / "fields" / "broken")
    (study / "results" / "tiny" / "report.html").unlink()
    done = snakemake(study, "-n", "--cores", "1", config=TINY)
    assert planned(done.output) == {"register", "evaluate", "tables", "pictures", "write_report"}


def test_a_deleted_report_is_made_again_in_seconds_from_the_tables(study):
    report = study / "results" / "tiny" / "report.html"
    made = [path for kind in ("models", "fields", "metrics") for path in (report.parent / kind).rglob("*")]
    before = {path: path.stat().st_mtime_ns for path in made}
    report.unlink()
    done = snakemake(study, "--cores", "2", config=TINY)
    assert done.returncode == 0 and report.exists()
    assert planned(done.output) == {"write_report"}
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())


def test_snakemake_bundles_the_figures_with_captions(study):
    done = snakemake(study, "--report", study / "bundle.zip", config=TINY)
    assert done.returncode == 0, done.output
    unpacked = study / "bundle"
    shutil.unpack_archive(study / "bundle.zip", unpacked)
    text = "".join(p.read_text(errors="ignore") for p in unpacked.rglob("*.html"))
    for category in ("Comparison", "Pairs", "Training"):
        assert category in text
    assert "Dice over the test pairs by structure" in text


def test_a_trained_model_registers_any_pair_of_files(study, tmp_path):
    images = sorted(study.glob("results/tiny/cohort/*/sub-00[67]_T1w.nii.gz"))
    model = study / "results" / "tiny" / "models" / "voxelmorph"
    done = regcore_command(tmp_path, "register", *images, "-o", "out", "--method", model)
    assert done.returncode == 0, done.output
    report = json.loads((tmp_path / "out" / "register.json").read_text())
    measures = report["verdict"]["measures"]
    assert measures["likeness"] > measures["likeness_start"]
    assert (tmp_path / "out" / "inverse.nii.gz").exists()


def test_a_killed_training_resumes_where_it_was(study, tmp_path):
    """One more entry of a copy of the study, so that training is all that is left to do."""
    study = shutil.copytree(study, tmp_path / "study")
    config = json.loads(json.dumps(TINY))
    config["methods"]["slow"] = {**TINY["methods"]["voxelmorph"], "method": "voxelmorph", "steps": 200}
    (study / "config.yaml").write_text(yaml.safe_dump(config))
    target = "results/tiny/models/slow"
    command = [BIN / "snakemake", "--snakefile", ROOT / "workflow" / "Snakefile", "--directory", study]
    command += ["--configfile", study / "config.yaml", "--cores", "2", target]
    with (tmp_path / "out.txt").open("w") as out:
        process = subprocess.Popen(
            [str(c) for c in command], stdout=out, stderr=out, env=environment(), start_new_session=True
        )
    checkpoint = study / "results" / "tiny" / "checkpoints" / "slow" / "checkpoint.safetensors"
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert checkpoint.exists(), (tmp_path / "out.txt").read_text()
    assert not (study / target / "model.json").exists()

    assert snakemake(study, "--unlock", config=config).returncode == 0
    done = snakemake(study, "--cores", "2", target, config=config)
    assert done.returncode == 0, done.output
    assert planned(done.output) <= {"train"}
    assert re.search(r"resuming at step [1-9]\d*", done.output), done.output


def user_cohort(folder, splits=("train", "train", "validation", "validation", "test", "test")):
    """Six small sound scans and their table."""
    rng = np.random.default_rng(0)
    grid = Grid.centred((20, 24, 18), (2, 2, 2), (0, 0, 0))
    rows = []
    for number, split in enumerate(splits):
        data = rng.random(grid.shape).astype("f4")
        Volume(data, grid).save(folder / f"s{number}.nii.gz")
        Volume((data > 0.5).astype(np.int16), grid).save(folder / f"s{number}_seg.nii.gz")
        rows.append((f"s{number}", "1", split, "T1w", f"s{number}.nii.gz", f"s{number}_seg.nii.gz"))
    columns = ["subject", "session", "split", "contrast", "image", "labels"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "cohort.tsv", sep="\t", index=False)
    return {"study": "mine", "cohort": {"table": str(folder / "cohort.tsv")}, "methods": {"identity": None}}


def edit_table(folder, **changes):
    table = pd.read_csv(folder / "cohort.tsv", sep="\t", dtype=str)
    for column, value in changes.items():
        table.loc[0, column] = value
    table.to_csv(folder / "cohort.tsv", sep="\t", index=False)


def spoil(kind, folder, config):
    """Break a sound study in one way."""
    good = read_volume(folder / "s0.nii.gz")
    if kind == "missing file":
        (folder / "s0.nii.gz").unlink()
    elif kind == "coronal slice":
        one = good.data[:, :1]
        Volume(one, Grid(one.shape, good.grid.affine)).save(folder / "s0.nii.gz")
    elif kind == "labels on another grid":
        affine = good.grid.affine.copy()
        affine[0, 3] += 5
        Volume((good.data > 0.5).astype(np.int16), Grid(good.grid.shape, affine)).save(folder / "s0_seg.nii.gz")
    elif kind == "subject in two splits":
        edit_table(folder, subject="s5", session="2")
    elif kind == "UTF-16":
        table = (folder / "cohort.tsv").read_text()
        (folder / "cohort.tsv").write_text(table, encoding="utf-16")
    elif kind == "one image twice":
        edit_table(folder, image="s5.nii.gz")
    elif kind == "empty split":
        config["pairs"] = {"contrasts": ["T2w", "T2w"]}
    elif kind == "unknown method":
        config["methods"] = {"voxelmorf": None}
    elif kind == "misspelt setting":
        config["methods"] = {"syn": {"itterations": [1]}}
    elif kind == "misspelt key":
        config["preproces"] = {}
    elif kind == "unknown reference":
        config["evaluation"] = {"reference": "identty"}
    elif kind.startswith("import"):
        config["methods"] = {"theirs": {"method": "imported", "folder": str(folder)}}
        rows = {"import of other pairs": "s0\ts1\tx", "import of a pair twice": "s4\ts5\tx\ns4_1_T1w\ts5\ty"}
        if kind in rows:
            (folder / "pairs.tsv").write_text(f"fixed\tmoving\tfield\n{rows[kind]}\n")
        elif kind == "import from nowhere":
            config["methods"]["theirs"]["folder"] = str(folder / "nowhere")
    elif kind == "nothing to run":
        config["methods"] = {"deeds": None}
    elif kind == "no table":
        config["cohort"] = {"table": "none.tsv"}


def test_what_is_installed_is_decided_once(tmp_path):
    """A job takes over the decision, though by then the tool is there, or no longer."""
    config = user_cohort(tmp_path)
    config["methods"] |= {"deeds": None, "syn": None}
    first = plan_study(config)
    assert set(first.methods) == {"identity", "syn"} and "not set" in first.unavailable["deeds"]
    again = plan_study({**first.config, UNAVAILABLE: {"syn": "was not there"}}, check=False)
    assert set(again.methods) == {"identity", "deeds"} and again.spotlight == ["deeds"]
    assert set(plan_study(first.config, check=False).methods) == {"identity", "syn"}


def test_no_validation_scans_are_needed_where_nothing_trains(tmp_path):
    config = user_cohort(tmp_path, splits=("train", "train", "train", "train", "test", "test"))
    plan = plan_study(config)
    assert set(plan.pairs["split"]) == {"test"}


@pytest.mark.workflow
def test_a_study_of_imported_fields_alone_runs_to_a_report(tmp_path):
    config = user_cohort(tmp_path)
    config["methods"] = {"theirs": {"method": "imported", "folder": str(tmp_path / "theirs")}}
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "pairs.tsv").write_text("fixed\tmoving\tfield\ns4\ts5\ta.nii.gz\ns5\ts4\tnone.nii.gz\n")
    DisplacementField.identity(read_volume(tmp_path / "s4.nii.gz").grid).save(tmp_path / "theirs" / "a.nii.gz")
    done = snakemake(tmp_path, "--cores", "2", config=config)
    assert done.returncode == 0, done.output
    assert not {"prepare", "register", "train"} & planned(done.output)
    summary = pd.read_csv(tmp_path / "results" / "mine" / "tables" / "summary.csv", index_col="method")
    assert summary.loc["theirs", ["pairs", "failed"]].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing file", ["s0.nii.gz", "no such file"]),
        ("coronal slice", ["s0.nii.gz", "out of the x-y plane"]),
        ("labels on another grid", ["s0_seg.nii.gz", "not on the grid"]),
        ("subject in two splits", ["cohort.tsv", "s5", "train"]),
        ("UTF-16", ["cohort.tsv", "UTF-16", "save it as"]),
        ("one image twice", ["cohort.tsv, lines 2 and 7", "s0_1_T1w", "s5_1_T1w", "same image"]),
        ("empty split", ["cohort.tsv", "'test' is empty"]),
        ("unknown method", ["did you mean 'voxelmorph'"]),
        ("misspelt setting", ["methods.syn", "did you mean 'iterations'"]),
        ("misspelt key", ["did you mean 'preprocess'"]),
        ("unknown reference", ["evaluation.reference", "did you mean 'identity'"]),
        ("import from nowhere", ["methods.theirs.folder", "nowhere", "is not a folder"]),
        ("import without a list", ["pairs.tsv", "no such list of pairs"]),
        ("import of other pairs", ["pairs.tsv", "none of its pairs is a test pair", "s4_1_T1w"]),
        ("import of a pair twice", ["pairs.tsv, line 3", "listed twice"]),
        ("nothing to run", ["none can run here", "deeds: 'executable' is not set"]),
        ("no table", ["none.tsv", "no such cohort table"]),
    ],
)
def test_a_wrong_study_is_not_planned(tmp_path, kind, words):
    config = user_cohort(tmp_path)
    spoil(kind, tmp_path, config)
    with pytest.raises(InputError) as caught:
        plan_study(config, results=str(tmp_path / "results"))
    assert all(word in str(caught.value) for word in words)


@pytest.mark.workflow
def test_snakemake_ends_with_the_message_alone_and_writes_nothing(tmp_path):
    config = user_cohort(tmp_path)
    spoil("misspelt setting", tmp_path, config)
    done = snakemake(tmp_path, "--cores", "1", config=config)
    assert done.returncode != 0
    assert "did you mean 'iterations'" in done.output
    assert "Traceback" not in done.output
    assert not (tmp_path / "results").exists()


@pytest.mark.workflow
def test_damaged_scans_are_found_before_any_work(tmp_path):
    config = user_cohort(tmp_path)
    good = read_volume(tmp_path / "s4.nii.gz")
    good.with_data(np.ones_like(good.data)).save(tmp_path / "s2.nii.gz")
    data = good.data.copy()
    data[0, 0, 0] = np.nan
    good.with_data(data).save(tmp_path / "s4.nii.gz")
    good.with_data(np.zeros(good.grid.shape, np.int16)).save(tmp_path / "s5_seg.nii.gz")
    shutil.copy(tmp_path / "s3.nii.gz", tmp_path / "s5.nii.gz")
    (tmp_path / "s5.nii.gz").write_bytes((tmp_path / "s5.nii.gz").read_bytes()[:-3000])
    done = snakemake(tmp_path, "--cores", "1", config=config)
    assert done.returncode != 0
    for name, words in (("s2.nii.gz", "nothing to register"), ("s4.nii.gz", "NaN")):
        assert any(name in line and words in line for line in done.output.splitlines()), name
    assert "s5.nii.gz" in done.output and "copy the file again" in done.output, "all damage is listed at once"
    assert "s5_seg.nii.gz: the label map is empty" in done.output
    assert "Preparing" not in done.output
    made = {p for p in (tmp_path / "results" / "mine").rglob("*") if p.is_file() and "logs" not in p.parts}
    assert not made


@pytest.mark.workflow
def test_a_cohort_of_real_slices_runs_to_a_report(shared_data, tmp_path):
    config = {
        "study": "slices",
        "cohort": {"table": str(shared_data / "brain-slices" / "cohort.tsv")},
        "preprocess": {"spacing": 3, "affine": "none"},
        "pairs": {"validation": 2, "test": 2},
        "methods": {"affine": None},
    }
    done = snakemake(tmp_path, "--cores", "2", config=config)
    assert done.returncode == 0, done.output
    summary = pd.read_csv(tmp_path / "results" / "slices" / "tables" / "summary.csv", index_col="method")
    assert 0.2 < summary.loc["affine", "dice_mean"] < 0.9
    assert "true_error_mm" not in summary
