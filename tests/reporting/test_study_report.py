"""The report of a whole study, from its files to the page."""

import json
import re
from contextlib import nullcontext
from types import SimpleNamespace
from unittest.mock import patch

import pandas as pd
import pytest
from matplotlib.figure import Figure
from support.scored_rows import ENTRIES, METHODS, PAIRS, lose, of_pairs

from regcore.errors import InputError
from regcore.reporting import study_report
from regcore.reporting.comparisons import comparisons
from regcore.reporting.page import FAILURES_SHOWN
from regcore.study.results import Results
from regcore.study.settings import StudySettings


class Study:
    """The files that the report of a study reads, and a plan that knows where they are."""

    def __init__(self, folder, rows, unavailable):
        self.folder = folder
        failures = rows[(rows["metric"] == "failed") & (rows["value"] == 1)]
        self.failed = set(zip(failures["method"], failures["pair"], strict=True))
        for name in ("metrics", "tables", "figures"):
            (folder / name).mkdir()
        for name, part in rows.groupby("method"):
            part.to_parquet(folder / "metrics" / f"{name}.parquet")
        for name in METHODS:
            (folder / "fields" / name).mkdir(parents=True)
            for pair in PAIRS:
                (folder / "fields" / name / f"{pair}.json").write_text(json.dumps(self.facts(name, pair)))
        (folder / "scan.json").write_text(json.dumps({"common_shape": [8, 8], "common_spacing": [1, 1]}))
        self.plan = SimpleNamespace(
            folder=folder,
            settings=StudySettings.read(
                {
                    "study": "tiny",
                    "title": "A study",
                    "description": "Made up.",
                    "cohort": {"table": "cohort.tsv"},
                    "pairs": {"contrasts": ["T1w", "T2w"], "kind": "within-subject"},
                    "preprocess": {"affine": "rigid"},
                    "evaluation": {"reference": "syn"},
                    "methods": dict.fromkeys(METHODS),
                },
                "configuration",
            ),
            cohort=SimpleNamespace(table=pd.DataFrame({"split": ["test"], "subject": ["s"]})),
            scans=["scan"],
            reference="scan",
            embedded=None,
            knows_truth=True,
            label_table=None,
            methods=METHODS,
            starts={},
            spotlight=[],
            searched_methods=[],
            cell_searched_methods=[],
            unavailable=unavailable,
            entries=dict.fromkeys([*METHODS, "1", "2", "NA"], SimpleNamespace(learned=False)),
            prepared=lambda scan: str(folder / scan),
            pairs_of=lambda split: pd.DataFrame({"pair": PAIRS, "contrasts": "T1w to T1w"}),
            field=lambda name, pair: str(folder / "fields" / name / f"{pair}.nii.gz"),
        )

    def facts(self, name, pair):
        facts = {"pair": pair, "settings": {"speed": 3}, "commands": [f"{name} --register {pair}"], "failed": None}
        facts |= {"tool": "antspyx 1.2" if name == "syn" else None, "threads": 2, "processor": "Fast CPU"}
        if name == "demons":  # made elsewhere
            facts |= {"threads": None, "processor": None}
        if (name, pair) in self.failed:
            lines = "\n".join(f"line {number} <b>" for number in range(100))
            facts |= {"failed": f"{name} ended with status 1", "stderr": lines}
        return facts

    def outputs(self):
        names = {"summary": "summary.csv", "summary_html": "summary.html", "comparisons": "comparisons.csv"}
        names |= {"starts": "starts.csv", "verdicts": "verdicts.csv"}
        names |= {f"{name}_labels": f"{name}_by_label.csv" for name in ("dice", "hd95")}
        found = {key: self.folder / "tables" / name for key, name in names.items()}
        return found | {f"{name}_boxes": self.folder / "figures" / f"{name}_by_label.png" for name in ("dice", "hd95")}

    def report(self, entries=ENTRIES, boxes=False):
        """Make the tables, then the page; drawing the boxes takes longer than all the rest, so they may stay blank."""
        scored = [name for name in entries if (self.folder / "metrics" / f"{name}.parquet").exists()]
        blank = patch.object(study_report, "structure_boxes", lambda *_: Figure(figsize=(1, 1)))
        with nullcontext() if boxes else blank:
            study_report.write_tables(Results(self.plan), scored, self.outputs())
        study_report.write_page(Results(self.plan), self.folder / "report.html")
        return (self.folder / "report.html").read_text()


def headings(page):
    return re.findall("<h2.*?>(.*?)</h2>", page)


@pytest.mark.slow
def test_a_report_tells_what_failed_and_what_was_not_run(study_rows, tmp_path):
    study = Study(tmp_path, study_rows, {"greedy": "greedy is not installed: pip install picsl-greedy"})
    page = study.report(boxes=True)
    assert all(path.stat().st_size for path in study.outputs().values())
    assert {"Not run", "Failed pairs", "Comparisons with the reference", "HD95 by structure", "Cost"} < set(
        headings(page)
    )
    assert "<th>greedy</th><td>greedy is not installed: pip install picsl-greedy</td>" in page
    assert page.count("broken ended with status 1") == FAILURES_SHOWN == 10
    assert "and 5 more" in page
    assert page.count("demons ended with status 1") == 1
    assert "line 99 &lt;b&gt;" in page and "line 85 " in page and "line 84 " not in page
    assert "reference,\n<b>syn</b>, in either direction" in page
    compared = pd.read_csv(study.outputs()["comparisons"])
    pd.testing.assert_frame_equal(compared, comparisons(study_rows, list(METHODS), "syn"))


@pytest.mark.slow
def test_a_report_shows_random_starts_where_there_are_any(study_rows, tmp_path):
    study = Study(tmp_path, study_rows, {})
    assert "Random starts" not in headings(study.report())
    study.plan.starts = {"syn": ["syn", "demons"]}
    page = study.report()
    assert "Random starts" in headings(page)
    assert list(pd.read_csv(tmp_path / "tables" / "starts.csv")["starts"]) == [2]


def judged(rows, method, pair, **measures):
    """Give one registration other measures for its verdict."""
    rows = rows.copy()
    mine = (rows["method"] == method) & (rows["pair"] == pair)
    for name, value in measures.items():
        rows.loc[mine & (rows["metric"] == f"verdict_{name}"), "value"] = value
    return rows


def test_doubtful_and_failed_registrations_come_first_with_their_reasons(study_rows, tmp_path):
    rows = judged(study_rows, "demons", "p07", coverage=0.1)
    rows = judged(rows, "syn", "p03", folds_percent=50.0)
    rows = judged(rows, "truth", "p03", folds_percent=50.0)  # is no registration
    rows = judged(rows, "syn", "p05", coverage=0.5)  # worth a note, but ok
    page = Study(tmp_path, rows, {}).report()
    assert headings(page)[:3] == ["Methods and data", "Doubtful and failed registrations", "Summary"]
    section = page[page.index('<h2 id="verdicts">') : page.index('<h2 id="summary">')]
    failed, doubtful = section.index("<td>failed</td><td>syn</td><td>p03</td>"), section.index("<td>doubtful</td>")
    assert failed < doubtful
    assert "the field folds 50.0 % of the content" in section and "covers only 10% of the fixed" in section
    assert "<td>syn</td><td>1</td><td>0</td><td>14</td>" in section
    assert "<td>demons</td><td>0</td><td>1</td><td>13</td>" in section
    assert "identity" not in section and "truth" not in section and "p05" not in section
    table = pd.read_csv(tmp_path / "tables" / "verdicts.csv")
    assert len(table) == len(PAIRS) * 2 + 14 and list(table["level"][:3]) == ["failed", "doubtful", "ok"]
    assert table.set_index(["method", "pair"]).at[("syn", "p05"), "reasons"].startswith("the moving image covers 50%")


def test_a_report_names_only_the_worst_of_many(study_rows, tmp_path, monkeypatch):
    monkeypatch.setattr("regcore.reporting.page.IN_QUESTION_SHOWN", 2)
    rows = study_rows
    for pair in PAIRS[:3]:
        rows = judged(rows, "syn", pair, folds_percent=50.0)
    page = Study(tmp_path, rows, {}).report()
    assert page.count("<td>failed</td><td>syn</td>") == 2 and "and 1 more: tables/verdicts.csv" in page


def test_a_report_without_failures_has_no_section_of_them(study_rows, tmp_path):
    rows = study_rows[study_rows["method"] != "broken"].query("pair != 'p04'")
    study = Study(tmp_path, rows, {})
    study.plan.methods = {name: method for name, method in METHODS.items() if name != "broken"}
    page = study.report()
    assert not {"Not run", "Failed pairs"} & set(headings(page))
    assert 'href="#failures"' not in page and 'href="#unavailable"' not in page and 'href="#verdicts"' not in page
    assert "Failed" not in page


def test_a_report_says_why_nothing_is_compared(study_rows, tmp_path):
    study = Study(tmp_path, study_rows, {})
    study.plan.settings.evaluation.reference = "broken"
    page = study.report()
    assert "The reference method, broken, has registered no pair." in page
    assert "Wilcoxon" not in page and 'class="mark"' not in page


def test_a_report_says_that_the_reference_was_not_run(study_rows, tmp_path):
    study = Study(tmp_path, study_rows, {"greedy": "it is not installed"})
    study.plan.settings.evaluation.reference = "greedy"
    assert "<p>greedy, the reference, was not run: it is not installed</p>" in study.report()


def test_a_report_explains_lost_labels_where_there_are_any(study_rows, tmp_path):
    (tmp_path / "none").mkdir()
    assert "Labels lost" not in Study(tmp_path / "none", study_rows, {}).report()
    lose(study_rows, "demons", PAIRS, 2)
    (tmp_path / "some").mkdir()
    page = Study(tmp_path / "some", study_rows, {}).report()
    assert "<th>Labels lost</th>" in page and "Labels lost: number of labels that only one of the two" in page
    assert "the distances leave it out" in page


def test_a_report_shows_the_pictures_of_the_spotlight_alone(study_rows, tmp_path):
    study = Study(tmp_path, study_rows, {})
    for name in ("pairs_syn", "pairs_demons", "training_curves"):
        (tmp_path / "figures" / f"{name}.png").write_bytes(b"of an earlier run")
    study.plan.spotlight = ["demons"]
    found = headings(study.report())
    assert "Pairs: demons" in found and "Pairs: syn" not in found
    assert "Training" not in found, "no method of the study learns"


def test_a_report_shows_the_searches_for_hyperparameters(study_rows, tmp_path):
    study = Study(tmp_path, study_rows, {})
    (tmp_path / "figures" / "search_syn.png").write_bytes(b"rings")
    study.plan.searched_methods = ["syn"]
    assert "Search: syn" in headings(study.report())


def test_names_that_look_like_numbers_or_nothing_stay_names(study_rows, tmp_path):
    names = {"syn": "1", "demons": "NA", "broken": "2"}
    rows = study_rows.replace({"method": names})
    study = Study(tmp_path, study_rows, {})
    for path in (tmp_path / "metrics").iterdir():
        path.unlink()
    for name, part in rows.groupby("method"):
        part.to_parquet(tmp_path / "metrics" / f"{name}.parquet")
    folders = {new: old for old, new in names.items()}
    study.plan.methods = {names.get(name, name): method for name, method in METHODS.items()}
    study.plan.field = lambda name, pair: str(tmp_path / "fields" / folders.get(name, name) / f"{pair}.nii.gz")
    study.plan.settings.labels.groups = {"NA": [1], "2": [2, 3]}
    study.plan.settings.evaluation.reference = "1"
    entries = [names.get(name, name) for name in ENTRIES]
    page = study.report(entries)
    table = page[page.index('class="dataframe summary"') :]
    assert re.findall(r"<th>([^<]*)</th>\s*<td>", table)[:5] == entries
    assert '<sup class="mark">**</sup>' in page
    assert "<td>NA</td>\n      <td>HD95 mm</td>" in page
    assert "<td>15 of 15</td>" in page and "<td>NA</td>\n      <td>0." in page
    assert not re.search(r"\bnan\b", table[: table.index("How this was made")], flags=re.IGNORECASE)


def test_fields_from_elsewhere_need_no_prepared_scan(study_rows, tmp_path):
    study = Study(tmp_path, study_rows, {})
    assert "<th>Common grid</th><td>8 × 8 voxels of 1 × 1 mm; affine step: rigid</td>" in study.report()
    (tmp_path / "scan.json").unlink()
    study.plan.methods = dict.fromkeys(METHODS, "imported")
    page = study.report()
    assert "Common grid" not in page and "<th>Reference image</th>" in page


def test_missing_facts_of_a_field_are_an_error_with_a_remedy(study_rows, tmp_path):
    study = Study(tmp_path, study_rows, {})
    (tmp_path / "fields" / "syn" / "p01.json").unlink()
    with pytest.raises(InputError, match=r"p01\.json: missing or damaged.*run the study again"):
        study.report()


def test_a_failure_without_words_is_shown(study_rows, tmp_path):
    study = Study(tmp_path, study_rows, {})
    for path in (tmp_path / "fields" / "broken").iterdir():
        facts = json.loads(path.read_text())
        del facts["stderr"]
        path.write_text(json.dumps(facts))
    assert study.report().count("broken ended with status 1") == FAILURES_SHOWN


def test_the_configuration_is_printed_without_what_is_missing_here(study_rows, tmp_path):
    page = Study(tmp_path, study_rows, {"greedy": "a secret of this machine"}).report()
    assert "unavailable:" not in page and page.count("a secret of this machine") == 1
    assert "kind: within-subject" in page


def test_a_report_is_written_though_every_pair_failed(study_rows, tmp_path):
    failed = study_rows[study_rows["metric"] == "failed"].query("method != 'truth'").assign(value=1.0)
    page = Study(tmp_path, failed, {}).report()
    assert "Failed pairs" in headings(page) and "Cost" not in headings(page)
    assert "15 of 15" in page


def test_methods_are_described_by_the_first_pair_that_did_not_fail(study_rows, tmp_path):
    failed = (study_rows["method"] == "syn") & (study_rows["pair"] == "p01")
    rows = study_rows[~failed | (study_rows["metric"] == "failed")].copy()
    rows.loc[failed & (rows["metric"] == "failed"), "value"] = 1.0
    lines = study_report._commands(Results(Study(tmp_path, rows, {}).plan))
    assert lines["syn"] == ['method syn, settings {"speed": 3}', "tool antspyx 1.2", "threads 2", "syn --register p02"]
    assert lines["demons"] == ['method demons, settings {"speed": 3}', "demons --register p01"]
    assert lines["broken"][-1] == "broken --register p01"


def test_the_hardware_of_imported_fields_is_not_known(study_rows, tmp_path):
    plan = Study(tmp_path, study_rows, {}).plan
    expected = "pairs registered on Fast CPU, 2 thread(s); not known for demons, registered elsewhere"
    assert study_report._hardware(Results(plan)) == expected
    plan.methods = {"demons": "imported"}
    assert study_report._hardware(Results(plan)) == "not known for demons, registered elsewhere"


def test_pairs_are_drawn_of_those_that_succeeded(study_rows, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(study_report, "save_figure", lambda figure, output: drawn.append(figure))
    monkeypatch.setattr(study_report, "pair_panels", lambda shown: [pair.title for pair in shown])
    monkeypatch.setattr(Results, "normalised", lambda results, scan: None)
    monkeypatch.setattr(Results, "field", lambda results, name, pair: None)
    plan = Study(tmp_path, study_rows, {}).plan
    plan.pairs_of = lambda split: pd.DataFrame({"pair": PAIRS, "fixed": "a", "moving": "b"})
    for name in ("demons", "broken"):
        study_report.draw_pairs(Results(plan), name, tmp_path / "x.png")
    dice = sorted(of_pairs(study_rows, "dice", "demons").values())
    assert drawn[0] == [f"best: Dice {dice[-1]:.3f}", f"median: Dice {dice[6]:.3f}", f"worst: Dice {dice[0]:.3f}"]
    assert drawn[1].axes[0].texts[0].get_text() == "broken registered none of the test pairs."
