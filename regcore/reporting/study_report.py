"""A study's result files → its tables, figures and page."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from regcore.cohort import SPLITS
from regcore.field import read_field
from regcore.files import atomic_write
from regcore.labels import scored_labels
from regcore.plan import Plan
from regcore.preprocess import prepare_image
from regcore.reporting.figures import ShownPair, dice_boxes, pair_panels, save_figure, training_curves
from regcore.reporting.page import Figure, summary_html, write_report
from regcore.reporting.tables import dice_by_label, summary, with_training
from regcore.study import facts_path, versions
from regcore.volume import read_volume


def write_tables(plan: Plan, entries: Sequence[str], metrics: Sequence[str], outputs: Mapping[str, str]) -> None:
    """Write ``summary`` (CSV), ``summary_html``, ``per_label`` (CSV) and ``boxes`` (PNG)."""
    rows = pd.concat([pd.read_parquet(path) for path in metrics], ignore_index=True)
    found = set(rows.loc[rows["metric"] == "dice", "label"])
    labels = scored_labels(found, plan.config["labels"], plan.label_table)
    trained = {name: _model_facts(plan, name)["training"] for name in plan.methods if plan.learned(name)}
    table = with_training(summary(rows, labels, entries), trained)
    with atomic_write(outputs["summary"]) as path:
        table.to_csv(path)
    with atomic_write(outputs["summary_html"]) as path:
        path.write_text(summary_html(table), encoding="utf-8")
    with atomic_write(outputs["per_label"]) as path:
        dice_by_label(rows, labels, entries).to_csv(path, index=False, float_format="%.4f")
    save_figure(dice_boxes(rows, labels, entries), outputs["boxes"])


def draw_training_curves(plan: Plan, methods: Sequence[str], output: str) -> None:
    """Draw the training curves of the learned methods."""
    histories = {name: pd.read_csv(plan.folder / "models" / name / "history.csv") for name in methods}
    save_figure(training_curves(histories), output)


def draw_pairs(plan: Plan, name: str, metrics: str, output: str) -> None:
    """Draw a method's test pairs with the best, the median and the worst mean Dice."""
    rows = pd.read_parquet(metrics)
    dice = rows[rows["metric"] == "dice"].groupby("pair")["value"].mean().sort_values(ascending=False)
    chosen = {"best": dice.index[0], "median": dice.index[len(dice) // 2], "worst": dice.index[-1]}
    scans = plan.pairs_of("test").set_index("pair")
    shown = []
    for rank, pair in chosen.items():
        fixed, moving = (
            prepare_image(read_volume(plan.cohort.file(scans.at[pair, side], "image")), plan.config["preprocess"])
            for side in ("fixed", "moving")
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
    shown = [
        Figure(
            figures / "dice_by_label.png",
            "Dice by structure",
            "Dice over the test pairs, left and right pooled. Boxes span the quartiles, the line is the median, "
            "whiskers reach 1.5 times the box.",
        )
    ]
    for name in plan.methods:
        path = figures / f"pairs_{name}.png"
        if path.exists():
            caption = (
                f"The test pairs with the best, the median and the worst mean Dice of {name}. Where registration "
                "succeeded the difference is pale; crossings in the warped grid are folds. The displacement includes "
                "the affine alignment."
            )
            shown.append(Figure(path, f"Pairs: {name}", caption))
    if (figures / "training_curves.png").exists():
        caption = "Losses on training pairs, Dice on validation pairs; the circled weights registered the test pairs."
        shown.append(Figure(figures / "training_curves.png", "Training", caption))
    write_report(
        output,
        plan.config,
        _facts(plan),
        pd.read_csv(tables / "summary.csv", index_col="method"),
        pd.read_csv(tables / "dice_by_label.csv"),
        shown,
        _commands(plan),
        versions(),
    )


def _facts(plan: Plan) -> list[tuple[str, str]]:
    config, table = plan.config, plan.cohort.table
    subjects = table.groupby("split")["subject"].nunique()
    grid = json.loads(Path(plan.prepared(plan.scans[0]) + ".json").read_text())
    source = "embedded cohort made from the ICBM-152 template" if plan.embedded else config["cohort"]["table"]
    return [
        ("Cohort", source),
        ("Subjects", ", ".join(f"{subjects[split]} {split}" for split in SPLITS if split in subjects)),
        ("Contrasts", " to ".join(reversed(config["pairs"]["contrasts"])) + " (moving to fixed)"),
        ("Test pairs", f"{len(plan.pairs_of('test'))}, kind {config['pairs']['kind']}"),
        ("Reference", plan.reference),
        (
            "Common grid",
            f"{' × '.join(map(str, grid['common_shape']))} voxels of "
            f"{' × '.join(f'{s:g}' for s in grid['common_spacing'])} mm; affine step: {config['preprocess']['affine']}",
        ),
        ("Methods", ", ".join(plan.methods)),
        ("True field", "known" if plan.knows_truth else "not known"),
        ("Hardware", _hardware(plan)),
    ]


def _hardware(plan: Plan) -> str:
    trained = [
        f"{name} trained on {facts['device']}, {facts['threads']} thread(s)"
        for name in plan.methods
        if plan.learned(name)
        for facts in [_model_facts(plan, name)["training"]]
    ]
    pair = plan.pairs_of("test")["pair"][0]
    places = {name: _field_facts(plan, name, pair) for name in plan.methods}
    registered = sorted({f"{facts['processor']}, {facts['threads']} thread(s)" for facts in places.values()})
    return "; ".join([*trained, f"pairs registered on {' and '.join(registered)}"])


def _commands(plan: Plan) -> dict[str, list[str]]:
    lines = {"the study": ["snakemake --cores all --configfile <a file with the configuration below>"]}
    pair = plan.pairs_of("test")["pair"][0]
    for name, method in plan.methods.items():
        facts = _field_facts(plan, name, pair)
        lines[name] = [f"method {method}, settings {json.dumps(facts['settings'])}", *facts["commands"]]
    return lines


def _field_facts(plan: Plan, name: str, pair: str) -> dict:
    return json.loads(facts_path(Path(plan.field(name, pair))).read_text())


def _model_facts(plan: Plan, name: str) -> dict:
    return json.loads((plan.folder / "models" / name / "model.json").read_text())
