"""Write a finished study's table, with the tool, version, settings and exact calls behind every row, as Markdown.

    python benchmarks/study_table.py results/oasis-brains docs/results/oasis-brains

Reads only ``tables/`` and the JSON beside the fields.  Writes ``README.md`` and copies the tables as CSV.
"""

import argparse
import json
import shutil
from pathlib import Path

import pandas as pd

from regcore.process.files import atomic_write

#: Column of the summary → heading, number format; those with an SD show it.
COLUMNS = {
    "dice_mean": ("Dice", "{:.3f}"),
    "hd95_mm": ("HD95 mm", "{:.2f}"),
    "mean_surface_distance_mm": ("MSD mm", "{:.2f}"),
    "folds_percent": ("folds %", "{:.4f}"),
    "ndv_percent": ("NDV %", "{:.4f}"),
    "sd_log_jacobian": ("SD log J", "{:.2f}"),
    "true_error_mm": ("true error mm", "{:.2f}"),
    "seconds": ("seconds", "{:.1f}"),
    "cpu_seconds": ("CPU s", "{:.1f}"),
    "peak_memory_mb": ("peak MB", "{:.0f}"),
    "failed": ("failed", "{:.0f}"),
}
#: Name of the study in config/config.yaml, which Snakemake runs without being told.
DEFAULT_STUDY = "default"
TABLES = ("summary.csv", "comparisons.csv", "dice_by_label.csv", "hd95_by_label.csv")


def table(summary: pd.DataFrame) -> pd.DataFrame:
    """The summary as text, empty where there is no value."""
    shown = pd.DataFrame({"method": summary.index})
    for column, (heading, number) in COLUMNS.items():
        if column not in summary:
            continue
        spread = summary.get("dice_sd" if column == "dice_mean" else f"{column}_sd", pd.Series(dtype=float))
        shown[heading] = [
            "" if pd.isna(value) else number.format(value) + _spread(number, spread.get(name))
            for name, value in summary[column].items()
        ]
    return shown


def _spread(number: str, value: float | None) -> str:
    return "" if value is None or pd.isna(value) else f" ± {number.format(value)}"


def facts(study: Path, name: str) -> dict | None:
    """What is known of a method's first pair that did not fail; None for the true fields."""
    found = [json.loads(path.read_text()) for path in sorted((study / "fields" / name).glob("*/*.json"))]
    return next((one for one in found if one["failed"] is None and one["settings"]), None)


def behind(study: Path, name: str) -> list[str]:
    """Tool, settings and exact calls of a method."""
    known = facts(study, name)
    if known is None:
        return []
    tool = known["tool"] or f"regcore {known['versions']['regcore']}, torch {known['versions']['torch']}"
    lines = [f"**{name}**: {tool}, {known['threads']} thread(s) on {known['processor']}"]
    return [*lines, "", "```", f"settings {json.dumps(known['settings'])}", *known["commands"], "```", ""]


def markdown(study: Path, summary: pd.DataFrame, how: str) -> str:
    pairs = int(summary["pairs"].max())
    lines = [
        f"# {study.name}",
        "",
        f"{pairs} test pairs; ± is the SD over them. Seconds cover the registration only; CPU seconds and peak memory "
        "(Python and torch included) cover the whole pair, from reading to a field on the native grid. Seconds are "
        "medians over pairs, memory is the maximum.",
        "",
        f"`{how}`",
        "",
        table(summary).to_markdown(index=False, disable_numparse=True),
        "",
        "## Tools, settings and exact calls",
        "",
    ]
    for name in summary.index:
        lines += behind(study, name)
    return "\n".join(lines).rstrip() + "\n"


def command(study: str, config: str | None = None) -> str:
    """The command that runs a study; the default study needs no configuration file."""
    if config is None and study == DEFAULT_STUDY:
        return "snakemake --cores all"
    return f"snakemake --cores all --configfile {config or f'config/studies/{study}.yaml'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="results/<study> of a finished study")
    parser.add_argument("output", type=Path, help="folder to write into")
    parser.add_argument(
        "--config", help="the study's file; default: config/studies/<study>.yaml, or none for the default study"
    )
    arguments = parser.parse_args()
    summary = pd.read_csv(arguments.study / "tables" / "summary.csv", index_col="method")
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name in TABLES:
        with atomic_write(arguments.output / name) as path:
            shutil.copyfile(arguments.study / "tables" / name, path)
    with atomic_write(arguments.output / "README.md") as path:
        path.write_text(
            markdown(arguments.study, summary, command(arguments.study.name, arguments.config)), encoding="utf-8"
        )


if __name__ == "__main__":
    main()
