"""The cohort table, its checks, and the pairs made of it."""

import time
from collections import Counter
from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chisquare

from regcore.cohort.pair_pool import BalancedPairs, PooledPairs
from regcore.cohort.pairs import draw_pairs, eligible_pairs, make_pairs, read_pairs
from regcore.cohort.settings import PairSettings
from regcore.cohort.table import check_files, checked_cohort, read_cohort
from regcore.errors import InputError
from regcore.images.field import DisplacementField
from regcore.images.volume import Grid, Volume

PAIRS = PairSettings(validation=None, test=None)


def write_table(folder, rows):
    columns = ["subject", "session", "split", "contrast", "image", "labels"]
    path = folder / "cohort.tsv"
    pd.DataFrame([dict(zip(columns, row, strict=False)) for row in rows]).to_csv(path, sep="\t", index=False)
    return path


def row(subject, split="test", session="1", contrast="T1w"):
    image = f"{subject}_{session}{'' if contrast == 'T1w' else contrast}.nii.gz"
    return (subject, session, split, contrast, image, f"{subject}_seg.nii.gz")


def test_paths_are_relative_to_the_table(tmp_path):
    cohort = read_cohort(write_table(tmp_path, [row("a")]))
    assert cohort.file("a_1_T1w", "image") == tmp_path / "a_1.nii.gz"
    assert cohort.file("a_1_T1w", "mask") is None
    assert cohort.existing("a_1_T1w", "image") == tmp_path / "a_1.nii.gz"
    with pytest.raises(InputError, match="a_1_T1w has no mask"):
        cohort.existing("a_1_T1w", "mask")
    assert set(cohort.files("a_1_T1w")) == {"image", "labels"}


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([row("a", "train"), row("a", "test", session="2")], ["subject 'a'", "test and train"]),
        ([row("a"), row("a")], ["more than once", "a_1_T1w"]),
        ([row("a", "tests")], ["line 2", "split", "did you mean 'test'"]),
        ([row("a b")], ["line 2", "subject", "a b"]),
        ([("a", "1", "test", "T1w", "", "x")], ["line 2", "image"]),
    ],
)
def test_a_wrong_table_is_explained(tmp_path, rows, words):
    path = write_table(tmp_path, rows)
    with pytest.raises(InputError) as caught:
        read_cohort(path)
    assert all(word in str(caught.value) for word in [str(path), *words])


def test_one_image_of_two_scans_is_refused_by_line(tmp_path):
    same = ("b", "1", "train", "T1w", "./a_1.nii.gz", "")
    with pytest.raises(
        InputError, match=r"cohort\.tsv, lines 2 and 4: 'a_1_T1w' \(test\) and 'b_1_T1w' \(train\)"
    ) as found:
        read_cohort(write_table(tmp_path, [row("a"), row("c"), same]))
    assert "test scores be meaningless" in str(found.value)
    with pytest.raises(InputError, match="two of one image are no pair"):
        read_cohort(write_table(tmp_path, [row("a"), ("a", "2", "test", "T1w", str(tmp_path / "a_1.nii.gz"), "")]))


def save(folder, *names, shape=(8, 9), seed=0):
    grid = Grid.centred(shape, [1] * len(shape), [0] * len(shape))
    for number, name in enumerate(names):
        data = np.random.default_rng(seed + number).random(shape).astype("f4")
        Volume(data, grid).save(folder / f"{name}.nii.gz")
        Volume((data > 0.5).astype(np.int16), grid).save(folder / f"{name[0]}_seg.nii.gz")
    return grid


def test_links_to_one_image_are_refused(tmp_path):
    save(tmp_path, "a_1", "b_1")
    for make in ("symlink_to", "hardlink_to"):
        (tmp_path / "b_1.nii.gz").unlink()
        getattr(tmp_path / "b_1.nii.gz", make)(tmp_path / "a_1.nii.gz")
        with pytest.raises(InputError, match=r"'a_1_T1w' \(train\) and 'b_1_T1w' \(test\) have the same image"):
            check_files(read_cohort(write_table(tmp_path, [row("a", "train"), row("b")])))


@pytest.mark.parametrize(
    ("column", "content", "words"),
    [
        ("landmarks", "name\tx\ty\ntip\t1\tfar\n", "line 2: x y must be finite numbers"),
        ("landmarks", None, "no such landmark table"),
        ("to_template", None, "no such file"),
        ("from_template", "no field", "not a readable NIfTI"),
        ("to_template", "image", "not a displacement field"),
        ("to_template", "other grid", "is not on the grid of its scan"),
    ],
)
def test_files_that_are_read_last_are_opened_first(tmp_path, column, content, words):
    grid = save(tmp_path, "a_1")
    path = tmp_path / {"landmarks": "extra.tsv"}.get(column, "extra.nii.gz")
    if content == "image":
        Volume(np.ones((8, 9), "f4"), grid).save(path)
    elif content == "other grid":
        DisplacementField.identity(Grid.centred((8, 9), (2, 2), (0, 0))).save(path)
    elif content is not None:
        path.write_text(content)
    table = pd.read_csv(write_table(tmp_path, [row("a")]), sep="\t", dtype=str).assign(**{column: path.name})
    with pytest.raises(InputError, match=rf"extra.*{words}"):
        check_files(checked_cohort(table, tmp_path / "cohort.tsv"))


def test_a_missing_table_or_column_is_explained(tmp_path):
    with pytest.raises(InputError, match="no such cohort table"):
        read_cohort(tmp_path / "none.tsv")
    (tmp_path / "commas.tsv").write_text("subject,session,split\n1,1,test\n")
    with pytest.raises(InputError, match=r"lacks the column.*separated by tabs"):
        read_cohort(tmp_path / "commas.tsv")


def test_labels_on_another_grid_missing_files_and_mixed_dimensions_are_found_together(tmp_path):
    rng = np.random.default_rng(0)
    for name, shape, spacing in (("a_1", (8, 9, 10), 1), ("a_seg", (8, 9, 10), 2), ("b_1", (8, 9), 1)):
        grid = Grid.centred(shape, [spacing] * len(shape), [0] * len(shape))
        Volume(rng.random(shape).astype("f4"), grid).save(tmp_path / f"{name}.nii.gz")
    cohort = read_cohort(write_table(tmp_path, [row("a"), row("b"), row("c")]))
    with pytest.raises(InputError) as caught:
        check_files(cohort)
    message = str(caught.value)
    assert "a_seg.nii.gz" in message and "not on the grid" in message
    assert "b_seg.nii.gz: no such file" in message
    assert "c_1.nii.gz: no such file" in message
    assert "2-D and 3-D images are mixed" in message


@pytest.fixture
def cohort(tmp_path):
    rows = [row(s, "test", session) for s in "abc" for session in "12"] + [row("t", "train"), row("r", "atlas")]
    return read_cohort(write_table(tmp_path, rows))


@pytest.mark.parametrize(
    ("kind", "count", "same_subject"),
    [("random", 24, False), ("all", 24, False), ("within-subject", 6, True), ("atlas", 6, False)],
)
def test_pairs_of_each_kind(cohort, kind, count, same_subject):
    pairs = make_pairs(cohort, "test", PAIRS.with_values({"kind": kind, "atlas": "r"}), seed=0)
    assert len(pairs) == count == pairs["pair"].nunique()
    assert (pairs["fixed"] != pairs["moving"]).all()
    same = pairs["fixed"].str[0] == pairs["moving"].str[0]
    assert (same == same_subject).all()
    if kind == "atlas":
        assert set(pairs["fixed"]) == {"r_1_T1w"}


def test_a_random_choice_follows_the_seed(cohort):
    def draw(seed):
        return list(make_pairs(cohort, "test", PAIRS.with_values({"test": 5}), seed)["pair"])

    assert len(draw(1)) == 5
    assert draw(1) == draw(1) != draw(2)


def test_an_empty_split_or_one_too_small_is_explained(cohort):
    with pytest.raises(InputError, match=r"split 'validation' is empty"):
        make_pairs(cohort, "validation", PAIRS, seed=0)
    with pytest.raises(InputError, match=r"split 'test' is empty.*contrast T2w"):
        make_pairs(cohort, "test", PAIRS.with_values({"contrasts": ["T2w", "T1w"]}), seed=0)
    with pytest.raises(InputError, match="too few scans"):
        make_pairs(cohort, "train", PAIRS, seed=0)


def listed(cohort, split, kind):
    """The pairs of different contrasts by going through all of them."""
    subject, atlas = cohort.table["subject"], "r_1_T2w"
    fixed, moving = cohort.scans(split, "T2w"), cohort.scans(split, "T1w")
    if kind == "atlas":
        return [(atlas, m) for m in moving]
    return [(f, m) for f, m in product(fixed, moving) if (subject[f] == subject[m]) == (kind == "within-subject")]


@pytest.fixture
def two_contrasts(tmp_path):
    """Subjects with unequal numbers of scans, in an order that mixes them."""
    scans = ["a1T1w", "b1T2w", "a1T2w", "c1T1w", "b1T1w", "a2T1w", "d1T2w", "a3T2w", "b2T1w", "e1T1w"]
    rows = [row(s[0], "train", s[1], s[2:]) for s in scans] + [row("r", "atlas", "1", "T2w")]
    return read_cohort(write_table(tmp_path, rows))


@pytest.mark.parametrize("kind", ["random", "all", "within-subject", "atlas"])
def test_eligible_pairs_are_numbered_as_if_they_were_listed(cohort, two_contrasts, kind):
    pairs = PAIRS.with_values({"kind": kind, "contrasts": ["T2w", "T1w"], "atlas": "r"})
    found = eligible_pairs(two_contrasts, "train", pairs)
    assert list(found) == listed(two_contrasts, "train", kind)
    assert found.scans == {scan for pair in found for scan in pair}
    one = eligible_pairs(cohort, "test", PAIRS.with_values({"kind": kind, "atlas": "a"}))
    assert all(fixed != moving for fixed, moving in one)
    assert len(set(one)) == len(one) == {"random": 24, "all": 24, "within-subject": 6, "atlas": 5}[kind]
    for number in (-1, len(one)):
        with pytest.raises(IndexError):
            one[number]


@pytest.mark.parametrize("kind", ["random", "within-subject", "atlas"])
def test_every_eligible_pair_is_drawn_equally_often(two_contrasts, kind):
    pairs = PAIRS.with_values({"kind": kind, "contrasts": ["T2w", "T1w"], "atlas": "r"})
    found = eligible_pairs(two_contrasts, "train", pairs)
    drawn = Counter(found[n] for n in np.random.default_rng(0).integers(len(found), size=400 * len(found)))
    assert drawn.keys() == set(found)
    assert chisquare(list(drawn.values())).pvalue > 0.01


@pytest.mark.parametrize("kind", ["random", "atlas"])
def test_fewer_training_subjects_are_among_more_of_them(tmp_path, kind):
    rows = [row(f"s{i}", "train", session) for i in range(20) for session in "12"] + [row("r", "atlas")]
    cohort = read_cohort(write_table(tmp_path, rows))
    pairs = PAIRS.with_values({"kind": kind, "atlas": "r"})

    def drawn(count, seed=0):
        scans = eligible_pairs(cohort, "train", pairs, count, seed).scans - {"r_1_T1w"}
        return set(cohort.table.loc[list(scans), "subject"])

    assert [len(drawn(n)) for n in (2, 5, 10, 20)] == [2, 5, 10, 20]
    assert drawn(2) < drawn(5) < drawn(10) < drawn(20)
    assert drawn(5) == drawn(5) != drawn(5, seed=1)
    with pytest.raises(InputError, match=r"methods.x.training_subjects: 21 subjects are requested, but .* has 20"):
        eligible_pairs(cohort, "train", pairs, 21, 0, "methods.x.training_subjects")


def test_subjects_that_can_make_no_pair_do_not_count(cohort, tmp_path):
    rows = [row("a", "train"), *(row("b", "train", session) for session in "12")]
    cohort = read_cohort(write_table(tmp_path, rows))
    with pytest.raises(InputError, match="2 subjects are requested, but the cohort has 1"):
        eligible_pairs(cohort, "train", PAIRS.with_values({"kind": "within-subject"}), 2, 0)


def test_thousands_of_scans_are_paired_without_listing_their_pairs():
    count = 5000
    rows = [
        dict(zip(("subject", "session", "split", "contrast"), row(f"s{i}", "train"), strict=False))
        for i in range(count)
    ]
    table = pd.DataFrame(rows).assign(image=[f"{number}.nii.gz" for number in range(len(rows))], labels="")
    cohort = checked_cohort(table, "cohort.tsv")
    started = time.process_time()
    found = eligible_pairs(cohort, "train", PAIRS, 4000, seed=0)
    some = draw_pairs(cohort, "train", PAIRS, 30, seed=0)
    assert len(found) == 4000 * 3999 and len(found.scans) == 4000 and len(some) == 30
    assert found[len(found) - 1] == (found.fixed[-1], found.moving[-2])
    assert time.process_time() - started < 2, "listing the pairs takes ten times as long"


@pytest.fixture
def every_contrast(tmp_path):
    splits = dict.fromkeys("abcd", "test") | dict.fromkeys("efg", "train")
    rows = [row(who, split, contrast=contrast) for who, split in splits.items() for contrast in ("T1w", "T2w")]
    return read_cohort(write_table(tmp_path, rows))


BOTH = {"contrasts": [["T1w", "T1w"], ["T1w", "T2w"]]}


def test_several_contrasts_are_paired_for_the_same_subjects(every_contrast):
    pairs = make_pairs(every_contrast, "test", PAIRS.with_values(BOTH | {"test": 5}), seed=3)
    assert pairs["contrasts"].value_counts().to_dict() == {"T1w to T1w": 5, "T2w to T1w": 5}
    subjects = [(f[0], m[0]) for f, m in zip(pairs["fixed"], pairs["moving"], strict=True)]
    assert subjects[:5] == subjects[5:]
    assert pairs["fixed"].str.endswith("T1w").all()
    assert pairs["moving"].str[-3:].tolist() == ["T1w"] * 5 + ["T2w"] * 5


def test_training_draws_from_the_pairs_of_every_contrast(every_contrast):
    pooled = eligible_pairs(every_contrast, "train", PAIRS.with_values(BOTH))
    each = [eligible_pairs(every_contrast, "train", PAIRS.with_values({"contrasts": c})) for c in BOTH["contrasts"]]
    assert isinstance(pooled, PooledPairs)
    assert list(pooled) == [*each[0], *each[1]]
    assert pooled.scans == each[0].scans | each[1].scans
    with pytest.raises(IndexError):
        pooled[len(pooled)]
    fewer = eligible_pairs(every_contrast, "train", PAIRS.with_values(BOTH), subjects=2)
    assert len(fewer) == 4 and len({scan[0] for scan in fewer.scans}) == 2
    assert fewer.identity != pooled.identity


def test_an_atlas_shows_the_contrast_that_is_fixed(every_contrast):
    wanted = {"kind": "atlas", "atlas": "e", "contrasts": [["T1w", "T1w"], ["T2w", "T1w"]]}
    pairs = make_pairs(every_contrast, "test", PAIRS.with_values(wanted), seed=0)
    assert pairs["fixed"].tolist() == ["e_1_T1w"] * 4 + ["e_1_T2w"] * 4


def test_an_atlas_without_the_fixed_contrast_is_refused(cohort):
    wanted = PAIRS.with_values({"kind": "atlas", "atlas": "r", "contrasts": [["T1w", "T1w"], ["T2w", "T1w"]]})
    with pytest.raises(InputError, match=r"split 'test' is empty.*contrast T2w|'r' has no scan of contrast T2w"):
        make_pairs(cohort, "test", wanted, seed=0)


def test_a_subject_with_one_scan_can_be_listed_by_name(cohort, tmp_path):
    table = read_pairs(write_pairs(tmp_path, ("r", "t")), cohort)
    assert table[["fixed", "moving"]].to_numpy().tolist() == [["r_1_T1w", "t_1_T1w"]]


def write_pairs(folder, *pairs, columns="fixed\tmoving"):
    path = folder / "pairs.tsv"
    path.write_text("\n".join([columns, *("\t".join(pair) for pair in pairs)]) + "\n")
    return path


def test_listed_pairs_are_the_test_pairs(every_contrast, tmp_path):
    path = write_pairs(tmp_path, ("b_1_T1w", "a_1_T1w"), ("c_1_T2w", "d_1_T1w"))
    wanted = PAIRS.with_values({"kind": "listed", "table": str(path), "validation": 2})
    pairs = make_pairs(every_contrast, "test", wanted, seed=0)
    assert pairs["pair"].tolist() == ["b_1_T1w--a_1_T1w", "c_1_T2w--d_1_T1w"]
    assert pairs["contrasts"].tolist() == ["T1w to T1w", "T1w to T2w"]
    assert len(eligible_pairs(every_contrast, "train", wanted)) == 6


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([("a_1_T1w", "b_1_T1w")] * 2, "line 3: the pair a_1_T1w, b_1_T1w is listed twice"),
        ([("a_1_T1w", "x")], "line 2: 'x' is not a scan or subject of .*cohort.tsv"),
        ([("a_1_T1w", "b")], "line 2: subject 'b' has several scans; name one of them: b_1_T1w, b_1_T2w"),
        ([("a_1_T1w", "a_1_T1w")], "line 2: 'a_1_T1w' is paired with itself"),
        ([("a_1_T1w", "e_1_T1w")], "line 2: 'e_1_T1w' is a train scan, not a test scan"),
        ([], "has no pairs"),
    ],
)
def test_a_wrong_list_of_pairs_is_explained(every_contrast, tmp_path, rows, words):
    wanted = PAIRS.with_values({"kind": "listed", "table": str(write_pairs(tmp_path, *rows))})
    with pytest.raises(InputError, match=rf"pairs\.tsv.*{words}"):
        make_pairs(every_contrast, "test", wanted, seed=0)


def test_a_list_of_pairs_that_is_missing_or_lacks_a_column_is_explained(every_contrast, tmp_path):
    with pytest.raises(InputError, match="needs 'table'"):
        make_pairs(every_contrast, "test", PAIRS.with_values({"kind": "listed", "table": None}), seed=0)
    with pytest.raises(InputError, match=r"none\.tsv: no such list"):
        read_pairs(tmp_path / "none.tsv", every_contrast)
    with pytest.raises(InputError, match=r"lacks the column\(s\) field; its first line names fixed, moving"):
        read_pairs(write_pairs(tmp_path, ("a", "b")), every_contrast, "field")


MIXED = PAIRS.with_values({"kind": "mixed"})


@pytest.fixture
def two_datasets(tmp_path):
    """Of each split three subjects of either dataset with two sessions each, and one of a dataset with one."""
    columns = ["subject", "session", "split", "contrast"]
    rows = [
        dict(zip(columns, row(who, split, session), strict=False), dataset=name)
        for split, letters in (("train", "abc def g"), ("test", "hij klm n"))
        for name, members in zip(("big", "small", "single"), letters.split(), strict=True)
        for who in members
        for session in ("1" if name == "single" else "12")
    ]
    table = pd.DataFrame(rows).assign(image=[f"{number}.nii.gz" for number in range(len(rows))], labels="")
    return checked_cohort(table, tmp_path / "cohort.tsv")


def check_mixed(cohort, pairs, split):
    table = cohort.table
    assert set(table.loc[[*pairs["fixed"], *pairs["moving"]], "split"]) == {split}
    assert (table.loc[pairs["fixed"], "dataset"].to_numpy() == table.loc[pairs["moving"], "dataset"].to_numpy()).all()
    assert (pairs["dataset"].to_numpy() == table.loc[pairs["fixed"], "dataset"].to_numpy()).all()
    same = pairs["fixed"].str[0] == pairs["moving"].str[0]
    assert ((pairs["task"] == "within") == same).all()
    assert (pairs["fixed"] != pairs["moving"]).all() and not pairs["pair"].duplicated().any()


@pytest.mark.parametrize(("wanted", "within", "across"), [(16, [4, 4], [4, 4]), (10, [3, 2], [3, 2]), (40, 6, 10)])
def test_mixed_pairs_are_spread_evenly_over_tasks_and_datasets(two_datasets, wanted, within, across):
    pairs = make_pairs(two_datasets, "test", MIXED.with_values({"test": wanted}), seed=1)
    check_mixed(two_datasets, pairs, "test")
    counts = pairs.groupby(["task", "dataset"]).size()
    for task, expected in (("within", within), ("across", across)):
        assert (counts[task].reindex(["big", "small"]) == expected).all()
    assert pairs.equals(make_pairs(two_datasets, "test", MIXED.with_values({"test": wanted}), seed=1))
    assert not pairs.equals(make_pairs(two_datasets, "test", MIXED.with_values({"test": wanted}), seed=2))


def test_all_mixed_pairs(two_datasets):
    pairs = make_pairs(two_datasets, "test", MIXED, seed=1)
    check_mixed(two_datasets, pairs, "test")
    assert pairs.groupby(["task", "dataset"]).size().tolist() == [24, 24, 6, 6]


def test_training_draws_both_tasks_equally_often(two_datasets):
    found = eligible_pairs(two_datasets, "train", MIXED)
    assert isinstance(found, BalancedPairs) and len(found.scans) == 12
    drawn = Counter(found)
    subject = two_datasets.table["subject"]
    tasks = Counter(subject[fixed] == subject[moving] for fixed, moving in found)
    assert tasks[True] == tasks[False] and len(drawn) == 12 + 48
    assert {drawn[pair] for pair in drawn if subject[pair[0]] == subject[pair[1]]} == {4}
    assert {drawn[pair] for pair in drawn if subject[pair[0]] != subject[pair[1]]} == {1}
    check_mixed(two_datasets, make_pairs(two_datasets, "train", MIXED, seed=0), "train")
    with pytest.raises(IndexError):
        found[len(found)]
    assert found.identity != PooledPairs(found.parts).identity
    fewer = eligible_pairs(two_datasets, "train", MIXED, subjects=4)
    assert len({scan[0] for scan in fewer.scans}) == 4 and set(fewer) < set(found)


def test_a_cohort_without_datasets_is_one_dataset(cohort):
    pairs = make_pairs(cohort, "test", MIXED.with_values({"test": 8}), seed=0)
    assert pairs["task"].value_counts().to_dict() == {"within": 4, "across": 4}
    assert set(pairs["dataset"]) == {""}


def test_a_split_that_lacks_a_task_is_explained(two_datasets):
    single = two_datasets.table.query("session == '1'")
    cohort = checked_cohort(single, "cohort.tsv")
    with pytest.raises(InputError, match="'test' has too few scans for a pair of kind 'within-subject' with both"):
        make_pairs(cohort, "test", MIXED, seed=0)


def test_a_pair_across_datasets_is_of_none(two_datasets):
    pairs = make_pairs(two_datasets, "test", PAIRS, seed=0)
    across = pairs["fixed"].str[0].isin(list("hij")) & pairs["moving"].str[0].isin(list("klm"))
    assert across.any() and set(pairs.loc[across, "dataset"]) == {""}
    assert set(pairs["dataset"]) == {"", "big", "small"} and set(pairs["task"]) == {"across"}
