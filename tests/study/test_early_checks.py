"""What a study reads only at its end is opened at its start."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from regcore.errors import InputError, explained
from regcore.images.volume import Grid, Volume
from regcore.study.job import job
from regcore.study.plan import plan_study
from regcore.study.stages.listing import check_cohort

CONFIG = {"study": "x", "cohort": {"embedded": {"ndim": 2}}, "methods": {"identity": None}}
GRID = Grid.centred((12, 14), (1, 1), (0, 0))


def write_cohort(folder, same=(), **columns):
    """Two validation and two test scans, each of its own noise; ``same`` names two with the same."""
    rows = []
    for number, split in enumerate(("validation", "validation", "test", "test")):
        name = f"s{number}"
        seed = same[0] if name in same else name
        data = np.random.default_rng(int(seed[1:])).random(GRID.shape).astype("f4")
        Volume(data, GRID).save(folder / f"{name}.nii.gz")
        Volume((data > 0.5).astype(np.int16), GRID).save(folder / f"{name}_seg.nii.gz")
        row = {"subject": name, "session": "1", "split": split, "contrast": "T1w"}
        rows.append({**row, "image": f"{name}.nii.gz", "labels": f"{name}_seg.nii.gz"})
    table = pd.DataFrame(rows)
    for column, values in columns.items():
        table[column] = values
    table.to_csv(folder / "cohort.tsv", sep="\t", index=False)


def plan(folder, **sections):
    cohort = {"table": str(folder / "cohort.tsv")}
    return plan_study({"study": "x", "cohort": cohort, "methods": {"identity": None}, **sections})


def landmarks(folder, *names):
    for number, name in enumerate(names):
        (folder / f"p{number}.tsv").write_text(f"name\tx\ty\n{name}\t1\t2\n")
    return [f"p{number}.tsv" for number in range(len(names))]


def test_landmarks_without_a_common_name_are_refused_at_the_start(tmp_path):
    write_cohort(tmp_path, landmarks=landmarks(tmp_path, "tip", "tip", "tip", "other"))
    with pytest.raises(InputError, match=r"p[23]\.tsv and .*p[23]\.tsv: no landmark has the same name in both"):
        plan(tmp_path)
    write_cohort(tmp_path, landmarks=landmarks(tmp_path, "one", "other", "tip", "tip"))
    plan(tmp_path)  # validation pairs are not measured by their landmarks


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"labels": {"table": "none.tsv"}}, r"none\.tsv: no such label table"),
        ({"labels": {"table": "bad.tsv"}}, r"bad\.tsv, line 3: .*'index' must hold whole numbers from 0 on, not 'x'"),
        ({"labels": {"table": "twice.tsv"}}, r"twice\.tsv, line 3: the label 1 is listed twice"),
        ({"labels": {"exclude": ["1-x"]}}, r"labels\.exclude: '1-x'"),
        ({"labels": {"groups": {"deep": ["y"]}}}, r"labels\.groups\.deep: 'y'"),
        ({"preprocess": {"reference": "thick.nii.gz"}}, r"preprocess\.reference: thick\.nii\.gz is not 2-D"),
        ({"preprocess": {"reference": "bad.tsv"}}, r"bad\.tsv: not a readable NIfTI"),
        ({"seed": 2**31}, "seed"),
    ],
)
def test_tables_and_images_beside_the_cohort_are_opened_at_the_start(tmp_path, monkeypatch, sections, words):
    monkeypatch.chdir(tmp_path)
    write_cohort(tmp_path)
    (tmp_path / "bad.tsv").write_text("index\tname\n1\tcaudate\nx\tthalamus\n")
    (tmp_path / "twice.tsv").write_text("index\tname\n1\tthalamus\n1\tcaudate\n")
    Volume(np.random.default_rng(0).random((8, 8, 8)), Grid((8, 8, 8), np.eye(4))).save(tmp_path / "thick.nii.gz")
    with pytest.raises(InputError, match=words):
        plan(tmp_path, **sections)


def test_copies_of_an_image_are_found_when_its_voxels_are_read(tmp_path):
    write_cohort(tmp_path, same=("s1", "s2"))
    with pytest.raises(InputError, match=r"'s1_1_T1w' \(validation\) and 's2_1_T1w' \(test\) have the same"):
        check_cohort(plan(tmp_path))
    write_cohort(tmp_path)
    assert "4 scans" in check_cohort(plan(tmp_path))


def test_labels_of_which_none_is_scored_are_found_before_any_registration(tmp_path):
    write_cohort(tmp_path)
    with pytest.raises(InputError, match="no label is left to score"):
        check_cohort(plan(tmp_path, labels={"exclude": [1]}))


def test_an_empty_mask_or_a_damaged_reference_is_found_before_any_registration(tmp_path):
    write_cohort(tmp_path, mask=["", "", "", "mask.nii.gz"])
    Volume(np.zeros(GRID.shape, np.int16), GRID).save(tmp_path / "mask.nii.gz")
    with pytest.raises(InputError, match=r"mask\.nii\.gz: the mask is empty"):
        check_cohort(plan(tmp_path))
    write_cohort(tmp_path)
    reference = tmp_path / "reference.nii"
    Volume(np.random.default_rng(9).random(GRID.shape), GRID).save(reference)
    reference.write_bytes(reference.read_bytes()[:-40])
    with pytest.raises(InputError, match=r"reference\.nii: truncated"):
        check_cohort(plan(tmp_path, preprocess={"reference": str(reference)}))


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device", "out/x.nii"), MemoryError("10 TB"), InputError("x")]
)
def test_a_job_ends_without_traceback_where_the_program_is_not_at_fault(error, caplog):
    snakemake = SimpleNamespace(threads=1, log=[], rule="prepare", wildcards=[], config=CONFIG)
    with pytest.raises(SystemExit) as ended, job(snakemake):
        raise error
    assert ended.value.code == 2 and str(explained(error)) in caplog.text


def test_a_fault_of_the_program_in_a_job_keeps_its_traceback():
    snakemake = SimpleNamespace(threads=1, log=[], rule="prepare", wildcards=[], config=CONFIG)
    with pytest.raises(ZeroDivisionError), job(snakemake):
        raise ZeroDivisionError
