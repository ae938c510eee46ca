"""From a study's result files to its tables, figures and report page."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from regcore.cohort.table import SPLITS
from regcore.process.files import atomic_write
from regcore.process.versions import versions
from regcore.reporting.comparisons import comparisons, reference_method
from regcore.reporting.figures import save_figure, structure_boxes, text_figure, training_curves
from regcore.reporting.page import Failure, Figure, Report, cost_html, summary_html, write_report
from regcore.reporting.pictures import ShownPair, pair_panels
from regcore.reporting.searches import search_figure
from regcore.reporting.starts import over_starts
from regcore.reporting.summaries import means_by_label, summary, with_training
from regcore.reporting.verdicts import verdicts
from regcore.study.plan import Plan
from regcore.study.results import Results

#: Lines of a failed method's output that the report shows.
OUTPUT_LINES = 15

#: Metrics of labels with a table by label and box plots, both named ``<name>_by_label``.
BY_LABEL = {"dice": "dice", "hd95": "hd95_mm"}


def write_tables(results: Results, entries: Sequence[str], outputs: Mapping[str, str]) -> None:
    """Write the tables and the box plots.

    Parameters
    ----------
    results : Results
        Of a study that has scored its entries.
    entries : sequence of str
        The rows of the summary, in their order.
    outputs : mapping of str → path
        Paths of ``summary``, ``comparisons``, ``starts`` and ``verdicts`` (CSV), ``summary_html``, and of
        ``<name>_labels`` (CSV) and ``<name>_boxes`` (PNG) for each name in ``BY_LABEL``.
    """
    plan = results.plan
    rows = pd.concat([results.scores(name) for name in entries], ignore_index=True)
    labels = results.labels(rows)
    trained = {name: results.training(name) for name in plan.methods if plan.entries[name].learned}
    table = with_training(summary(rows, labels, entries), trained)
    compared = comparisons(rows, list(plan.methods), _reference(plan, table))
    with atomic_write(outputs["starts"]) as path:
        _of_starts(plan, rows, table).to_csv(path, index=False)
    with atomic_write(outputs["verdicts"]) as path:
        verdicts(rows).to_csv(path, index=False, float_format="%.4g")
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
    """Means over random starts, for methods with several starts and the reference; empty if there are none."""
    groups, reference = dict(plan.starts), _reference(plan, table)
    group = next((name for name, methods in groups.items() if reference in methods), reference)
    if groups and group is not None:
        groups = {group: groups.get(group, [group]), **groups}
    return over_starts(rows, groups, group)


def draw_training_curves(results: Results, methods: Sequence[str], output: str) -> None:
    """Draw the training curves of the learned methods.

    Parameters
    ----------
    results : Results
        Of a study that has trained them.
    methods : sequence of str
        Their names, in the order of the rows.
    output : path
        The PNG.
    """
    histories = {name: results.history(name) for name in methods}
    save_figure(training_curves(histories), output)


def draw_search(results: Results, name: str, output: str) -> None:
    """Draw the result of a method's search for hyperparameters.

    Parameters
    ----------
    results : Results
        Of a study that has searched.
    name : str
        Name of the method.
    output : path
        The PNG.
    """
    save_figure(search_figure(results, name), output)


def draw_pairs(results: Results, name: str, output: str) -> None:
    """Draw a method's test pairs with the best, median and worst mean Dice, if it registered any.

    Parameters
    ----------
    results : Results
        Of a study that has scored the method.
    name : str
        Name of the method.
    output : path
        The PNG.
    """
    dice = results.of_pairs(name).sort_values(ascending=False)
    if dice.empty:
        save_figure(text_figure(f"{name} registered none of the test pairs."), output)
        return
    chosen = {"best": dice.index[0], "median": dice.index[len(dice) // 2], "worst": dice.index[-1]}
    shown = []
    for rank, pair in chosen.items():
        fixed, moving = results.scans_of(pair)
        title, images = f"{rank}: Dice {dice[pair]:.3f}", [results.normalised(scan) for scan in (fixed, moving)]
        shown.append(ShownPair(title, fixed, moving, images[0], images[1], results.field(name, pair)))
    save_figure(pair_panels(shown), output)


def write_page(results: Results, output: str) -> None:
    """Write the report from the tables and figures of the study.

    Parameters
    ----------
    results : Results
        Of a study whose tables and figures are written.
    output : path
        The HTML file.
    """
    plan = results.plan
    table = results.table("summary.csv", ["method"]).set_index("method")
    report = Report(
        config=plan.settings.as_dict(),
        facts=_facts(results),
        summary=table,
        comparisons=results.table("comparisons.csv", ["method", "reference"]),
        starts=results.table("starts.csv", ["method", "reference"]),
        reference=_reference(plan, table),
        per_label={
            "Mean Dice": results.table("dice_by_label.csv", ["name", "group"]),
            "Mean HD95 (mm)": results.table("hd95_by_label.csv", ["name", "group"]),
        },
        figures=_figures(plan, results.files.figure),
        verdicts=results.table("verdicts.csv", ["method", "pair", "level", "reasons"]),
        unavailable=plan.unavailable,
        failures={name: _failures(results, name) for name in plan.methods if table.at[name, "failed"]},
        commands=_commands(results),
        versions=versions(),
    )
    write_report(output, report)


def _figures(plan: Plan, figure: Callable[[str], Path]) -> list[Figure]:
    """The figures of the page, with their captions; ``figure`` tells the path of a file."""
    boxes = (
        "over the test pairs, left and right pooled. Boxes span the quartiles, the line is the median, whiskers reach "
        "1.5 times the box."
    )
    shown = [
        Figure(figure("dice_by_label.png"), "Dice by structure", f"Dice {boxes}"),
        Figure(
            figure("hd95_by_label.png"),
            "HD95 by structure",
            f"95th percentile of the distances between the surfaces of a label, {boxes} Lower is better.",
        ),
    ]
    for name in plan.spotlight:
        caption = (
            f"The test pairs with the best, median and worst mean Dice of {name}. Where registration succeeded, "
            "the difference image is pale; crossings in the warped grid are folds. The displacement includes the "
            "affine alignment."
        )
        shown.append(Figure(figure(f"pairs_{name}.png"), f"Pairs: {name}", caption))
    if any(plan.entries[name].learned for name in plan.methods):
        caption = "Losses on training pairs, Dice on validation pairs; the circled weights registered the test pairs."
        shown.append(Figure(figure("training_curves.png"), "Training", caption))
    for name in plan.searched_methods:
        caption = (
            "Each ring is a training with its own hyperparameters, coloured by its Dice on the validation pairs. A "
            "cyan edge marks trials that were ended early; they show the Dice of their last validation. The red cross "
            "marks the trial whose model registered the test pairs."
        )
        shown.append(Figure(figure(f"search_{name}.png"), f"Search: {name}", caption))
    for name in plan.cell_searched_methods:
        caption = (
            "Weights of the candidate operations on each edge at the end of the search; red boxes mark the chosen "
            "ones. If cells were not searched: the weights of the objective and the losses over the epochs."
        )
        shown.append(Figure(figure(f"architecture_{name}.png"), f"Architecture: {name}", caption))
    return shown


def _reference(plan: Plan, table: pd.DataFrame) -> str | None:
    return reference_method(table, plan.methods, plan.settings.evaluation.reference)


def _facts(results: Results) -> list[tuple[str, str]]:
    plan = results.plan
    study, table = plan.settings, plan.cohort.table
    subjects = table.groupby("split")["subject"].nunique()
    source = study.cohort.table or "embedded cohort made from the ICBM-152 template"
    facts = [
        ("Cohort", source),
        ("Subjects", ", ".join(f"{subjects[split]} {split}" for split in SPLITS if split in subjects)),
        ("Contrasts", ", ".join(plan.pairs_of("test")["contrasts"].unique()) + " (moving to fixed)"),
        ("Test pairs", f"{len(plan.pairs_of('test'))}, kind {study.pairs.kind}"),
        ("Reference image", plan.reference),
    ]
    if set(plan.methods.values()) != {"imported"}:  # otherwise no scan is prepared
        facts.append(("Common grid", _common_grid(results)))
    return [
        *facts,
        ("Methods", ", ".join(plan.methods)),
        ("True field", "known" if plan.knows_truth else "not known"),
        ("Hardware", _hardware(results)),
    ]


def _common_grid(results: Results) -> str:
    grid = results.common_grid()
    shape, spacing = " × ".join(map(str, grid["common_shape"])), " × ".join(f"{s:g}" for s in grid["common_spacing"])
    return f"{shape} voxels of {spacing} mm; affine step: {results.plan.settings.preprocess.affine}"


def _hardware(results: Results) -> str:
    plan = results.plan
    trained = [
        f"{name} trained on {facts['device']}, {facts['threads']} thread(s)"
        for name in plan.methods
        if plan.entries[name].learned
        for facts in [results.training(name)]
    ]
    places = {name: _example(results, name) for name in plan.methods}
    known = sorted(
        {f"{facts['processor']}, {facts['threads']} thread(s)" for facts in places.values() if facts["processor"]}
    )
    registered = [f"pairs registered on {' and '.join(known)}"] if known else []
    imported = [name for name, facts in places.items() if not facts["processor"]]
    unknown = [f"not known for {', '.join(imported)}, registered elsewhere"] if imported else []
    return "; ".join([*trained, *registered, *unknown])


def _commands(results: Results) -> dict[str, list[str]]:
    lines = {"the study": ["snakemake --cores all --configfile <a file with the configuration below>"]}
    for name, method in results.plan.methods.items():
        facts = _example(results, name)
        lines[name] = [f"method {method}, settings {json.dumps(facts['settings'])}"]
        lines[name] += [f"{what} {facts[what]}" for what in ("tool", "threads") if facts[what]]
        lines[name] += facts["commands"]
    return lines


def _failures(results: Results, name: str) -> list[Failure]:
    return [
        Failure(facts["pair"], facts["failed"], "\n".join(facts.get("stderr", "").splitlines()[-OUTPUT_LINES:]))
        for facts in results.facts(name)
        if facts["failed"]
    ]


def _example(results: Results, name: str) -> dict:
    """The facts of the first test pair that a method registered, or of the first pair if all failed."""
    succeeded = (facts for facts in results.facts(name) if not facts["failed"])
    return next(succeeded, None) or next(results.facts(name))
