"""A study's result files → its tables, figures and page."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd

from regcore.alignment.preprocess import read_scan
from regcore.cohort.labels import scored_labels
from regcore.cohort.table import SPLITS
from regcore.images.field import read_field
from regcore.process.files import atomic_write
from regcore.process.versions import versions
from regcore.reporting.figures import ShownPair, pair_panels, save_figure, structure_boxes, text_figure, training_curves
from regcore.reporting.page import Failure, Figure, Report, cost_html, summary_html, write_report
from regcore.reporting.searches import search_figure
from regcore.reporting.starts import over_starts
from regcore.reporting.tables import comparisons, means_by_label, reference_method, summary, with_training
from regcore.study.plan import Plan
from regcore.study.stages.register import read_facts

#: Lines of what a method printed before it failed that the report shows.
OUTPUT_LINES = 15

#: Metrics of labels that have a table of every label and box plots, both called ``<name>_by_label``.
BY_LABEL = {"dice": "dice", "hd95": "hd95_mm"}


def write_tables(plan: Plan, entries: Sequence[str], metrics: Sequence[str], outputs: Mapping[str, str]) -> None:
    """Write the tables and the box plots.

    Parameters
    ----------
    entries : sequence of str
        The rows of the summary, in their order.
    metrics : sequence of str
        Paths of the tidy rows.
    outputs : mapping
        Paths of ``summary``, ``comparisons`` and ``starts`` (CSV), ``summary_html``, and of ``<name>_labels`` (CSV) and
        ``<name>_boxes`` (PNG) for each name in ``BY_LABEL``.
    """
    rows = pd.concat([pd.read_parquet(path) for path in metrics], ignore_index=True)
    labels = _labels(plan, rows)
    trained = {name: _model_facts(plan, name)["training"] for name in plan.methods if plan.learned(name)}
    table = with_training(summary(rows, labels, entries), trained)
    compared = comparisons(rows, list(plan.methods), _reference(plan, table))
    with atomic_write(outputs["starts"]) as path:
        _of_starts(plan, rows, table).to_csv(path, index=False)
    with atomic_write(outputs["summary"]) as path:
        table.to_csv(path)
    with atomic_write(outputs["comparisons"]) as path:
        compared.to_csv(path, index=False)
    with atomic_write(outputs["summary_html"]) as path:
        path.write_text(summary_html(table, compared) + cost_html(table), encoding="utf-8")
    for name, metric in BY_LABEL.items():
        with atomic_write(outputs[f"{name}_labels"]) as path:
            means_by_label(rows, labels, entries, metric).to_csv(path, index=False, float_format="%.4f")
        save_figure(structure_boxes(rows, labels, entries, metric), outputs[f"{name}_boxes"])


def _of_starts(plan: Plan, rows: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Means over random starts, of those methods that have several and of the reference; empty where none has."""
    groups, reference = dict(plan.starts), _reference(plan, table)
    group = next((name for name, methods in groups.items() if reference in methods), reference)
    if groups and group is not None:
        groups = {group: groups.get(group, [group]), **groups}
    return over_starts(rows, groups, group)


def draw_training_curves(plan: Plan, methods: Sequence[str], output: str) -> None:
    """Draw the training curves of the learned methods."""
    histories = {name: pd.read_csv(plan.folder / "models" / name / "history.csv") for name in methods}
    save_figure(training_curves(histories), output)


def draw_search(plan: Plan, name: str, output: str) -> None:
    """Draw what a method's search for hyperparameters found."""
    save_figure(search_figure(plan, name), output)


def draw_pairs(plan: Plan, name: str, metrics: str, output: str) -> None:
    """Draw those of a method's test pairs, if it registered any, with the best, the median and the worst mean Dice."""
    rows = pd.read_parquet(metrics)
    dice = rows[rows["metric"] == "dice"].groupby("pair")["value"].mean().sort_values(ascending=False)
    if dice.empty:
        save_figure(text_figure(f"{name} registered none of the test pairs."), output)
        return
    chosen = {"best": dice.index[0], "median": dice.index[len(dice) // 2], "worst": dice.index[-1]}
    scans = plan.pairs_of("test").set_index("pair")
    shown = []
    for rank, pair in chosen.items():
        fixed, moving = (
            read_scan(plan.cohort.files(scans.at[pair, side]), plan.settings.preprocess) for side in ("fixed", "moving")
        )
        shown.append(
            ShownPair(
                f"{rank}: Dice {dice[pair]:.3f}",
                scans.at[pair, "fixed"],
                scans.at[pair, "moving"],
                fixed,
                moving,
                read_field(plan.field(name, pair)),
            )
        )
    save_figure(pair_panels(shown), output)


def write_page(plan: Plan, output: str) -> None:
    """Write the report from the tables and figures of the study."""
    tables, figures = plan.folder / "tables", plan.folder / "figures"
    boxes = (
        "over the test pairs, left and right pooled. Boxes span the quartiles, the line is the median, whiskers reach "
        "1.5 times the box."
    )
    shown = [
        Figure(figures / "dice_by_label.png", "Dice by structure", f"Dice {boxes}"),
        Figure(
            figures / "hd95_by_label.png",
            "HD95 by structure",
            f"95th percentile of the distances between the surfaces of a label, {boxes} Lower is better.",
        ),
    ]
    for name in plan.spotlight:
        caption = (
            f"The test pairs with the best, the median and the worst mean Dice of {name}. Where registration "
            "succeeded the difference is pale; crossings in the warped grid are folds. The displacement includes "
            "the affine alignment."
        )
        shown.append(Figure(figures / f"pairs_{name}.png", f"Pairs: {name}", caption))
    if any(plan.learned(name) for name in plan.methods):
        caption = "Losses on training pairs, Dice on validation pairs; the circled weights registered the test pairs."
        shown.append(Figure(figures / "training_curves.png", "Training", caption))
    for name in plan.searched_methods:
        caption = (
            "Each ring is a training with its own hyperparameters and its Dice on the validation pairs; those with "
            "a cyan edge were ended early, and have that of their last look. The red cross is the one that registered "
            "the test pairs."
        )
        shown.append(Figure(figures / f"search_{name}.png", f"Search: {name}", caption))
    for name in plan.cell_searched_methods:
        caption = (
            "Weights of the candidates on each edge at the end of the search, red boxes around what was chosen; or, "
            "where cells were not searched, the weights of the objective and the losses over its epochs."
        )
        shown.append(Figure(figures / f"architecture_{name}.png", f"Architecture: {name}", caption))
    table = _read_table(tables / "summary.csv", "method").set_index("method")
    report = Report(
        config=plan.settings.as_dict(),
        facts=_facts(plan),
        summary=table,
        comparisons=_read_table(tables / "comparisons.csv", "method", "reference"),
        starts=_read_table(tables / "starts.csv", "method", "reference"),
        reference=_reference(plan, table),
        per_label={
            "Mean Dice": _read_table(tables / "dice_by_label.csv", "name", "group"),
            "Mean HD95 (mm)": _read_table(tables / "hd95_by_label.csv", "name", "group"),
        },
        figures=shown,
        unavailable=plan.unavailable,
        failures={name: _failures(plan, name) for name in plan.methods if table.at[name, "failed"]},
        commands=_commands(plan),
        versions=versions(),
    )
    write_report(output, report)


def _read_table(path: Path, *text: str) -> pd.DataFrame:
    """A table that this study wrote: the columns ``text`` hold names, such as 1 or NA; only what is empty is NaN."""
    return pd.read_csv(path, dtype=dict.fromkeys(text, str), keep_default_na=False, na_values=[""])


def _labels(plan: Plan, rows: pd.DataFrame) -> pd.DataFrame:
    """The labels that have a Dice: none where every pair of every method failed."""
    found = set(rows.loc[rows["metric"] == "dice", "label"])
    if not found:
        return pd.DataFrame(columns=["index", "name", "group"])
    return scored_labels(found, plan.settings.labels, plan.label_table)


def _reference(plan: Plan, table: pd.DataFrame) -> str | None:
    return reference_method(table, plan.methods, plan.settings.evaluation.reference)


def _facts(plan: Plan) -> list[tuple[str, str]]:
    study, table = plan.settings, plan.cohort.table
    subjects = table.groupby("split")["subject"].nunique()
    source = "embedded cohort made from the ICBM-152 template" if plan.embedded else study.cohort.table
    facts = [
        ("Cohort", source),
        ("Subjects", ", ".join(f"{subjects[split]} {split}" for split in SPLITS if split in subjects)),
        ("Contrasts", ", ".join(plan.pairs_of("test")["contrasts"].unique()) + " (moving to fixed)"),
        ("Test pairs", f"{len(plan.pairs_of('test'))}, kind {study.pairs.kind}"),
        ("Reference image", plan.reference),
    ]
    if set(plan.methods.values()) != {"imported"}:  # then no scan is prepared
        facts.append(("Common grid", _common_grid(plan)))
    return [
        *facts,
        ("Methods", ", ".join(plan.methods)),
        ("True field", "known" if plan.knows_truth else "not known"),
        ("Hardware", _hardware(plan)),
    ]


def _common_grid(plan: Plan) -> str:
    grid = json.loads(Path(plan.prepared(plan.scans[0]) + ".json").read_text())
    shape, spacing = " × ".join(map(str, grid["common_shape"])), " × ".join(f"{s:g}" for s in grid["common_spacing"])
    return f"{shape} voxels of {spacing} mm; affine step: {plan.settings.preprocess.affine}"


def _hardware(plan: Plan) -> str:
    trained = [
        f"{name} trained on {facts['device']}, {facts['threads']} thread(s)"
        for name in plan.methods
        if plan.learned(name)
        for facts in [_model_facts(plan, name)["training"]]
    ]
    places = {name: _example(plan, name) for name in plan.methods}
    known = sorted(
        {f"{facts['processor']}, {facts['threads']} thread(s)" for facts in places.values() if facts["processor"]}
    )
    registered = [f"pairs registered on {' and '.join(known)}"] if known else []
    imported = [name for name, facts in places.items() if not facts["processor"]]
    unknown = [f"not known for {', '.join(imported)}, registered elsewhere"] if imported else []
    return "; ".join([*trained, *registered, *unknown])


def _commands(plan: Plan) -> dict[str, list[str]]:
    lines = {"the study": ["snakemake --cores all --configfile <a file with the configuration below>"]}
    for name, method in plan.methods.items():
        facts = _example(plan, name)
        lines[name] = [f"method {method}, settings {json.dumps(facts['settings'])}"]
        lines[name] += [f"{what} {facts[what]}" for what in ("tool", "threads") if facts[what]]
        lines[name] += facts["commands"]
    return lines


def _failures(plan: Plan, name: str) -> list[Failure]:
    return [
        Failure(facts["pair"], facts["failed"], "\n".join(facts.get("stderr", "").splitlines()[-OUTPUT_LINES:]))
        for facts in _facts_of_pairs(plan, name)
        if facts["failed"]
    ]


def _example(plan: Plan, name: str) -> dict:
    """What is known of the first test pair that a method registered, or of the first where all failed."""
    succeeded = (facts for facts in _facts_of_pairs(plan, name) if not facts["failed"])
    return next(succeeded, None) or next(_facts_of_pairs(plan, name))


def _facts_of_pairs(plan: Plan, name: str) -> Iterator[dict]:
    """What is known of each field of a method; read only as far as it is asked for."""
    for pair in plan.pairs_of("test")["pair"]:
        yield read_facts(Path(plan.field(name, pair)))


def _model_facts(plan: Plan, name: str) -> dict:
    return json.loads((plan.folder / "models" / name / "model.json").read_text())
