"""Two subjects of one cohort, left as their files have them: what a default must do at least."""

import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pandas as pd

from capture import sources
from capture.score import mean_dice
from regcore.evaluation.statistics import paired_comparison
from regcore.process.files import atomic_write
from regcore.process.isolation import CallFailed, Worker

#: Pairs of each cohort: every subject is once a fixed and once a moving image, as far as they are enough.
PAIRS = {"hippocampus": 40, "oasis-brains": 20}
COLUMNS = ["cohort", "fixed", "moving", "contestant", "dice", "cpu_seconds", "failed"]


def subject_pairs(cohort: str, count: int) -> list[tuple[str, str]]:
    """Pairs of different people from the split ``train``."""
    of_person: dict[str, str] = {}
    for name in sources.subjects(cohort, "train"):
        of_person.setdefault(name.rsplit("-", 1)[0], name)
    names = np.random.default_rng(0).permutation(list(of_person.values()))
    return [(str(names[i % len(names)]), str(names[(i + 1 + i // len(names)) % len(names)])) for i in range(count)]


def measure_native_pairs(contestants: list[str], limit: float, path: Path) -> None:
    """Add the rows that ``path`` does not have."""
    table = pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=COLUMNS)
    done = set(zip(table["fixed"], table["moving"], table["contestant"], strict=True))
    rows = table.to_dict("records")
    with tempfile.TemporaryDirectory(prefix="regcore-alignment-") as folder, ExitStack() as stack:
        workers = {name: stack.enter_context(Worker(threads=1)) for name in contestants}
        paths = [str(Path(folder) / f"{name}.nii") for name in ("fixed", "moving")]
        for cohort, count in PAIRS.items():
            for subjects in subject_pairs(cohort, count) if sources.has(cohort) else []:
                left = [name for name in contestants if (*subjects, name) not in done]
                if not left:
                    continue
                scans = [sources.READERS[cohort](subject, "T1w") for subject in subjects]
                for scan, file in zip(scans, paths, strict=True):
                    scan.image.save(file)
                for name in left:
                    row = dict(zip(COLUMNS, (cohort, *subjects, name), strict=False))
                    try:
                        found = workers[name].call("capture.contestants:align", name, *paths, seconds=limit)
                    except CallFailed as error:
                        row |= {"dice": 0.0, "failed": str(error).splitlines()[0][:200]}
                    else:
                        dice = mean_dice(scans[0].labels, scans[1].labels, np.array(found["matrix"]))
                        row |= {"dice": round(dice, 4), "cpu_seconds": round(found["cpu_seconds"], 3)}
                    rows.append(row)
                    print(row, file=sys.stderr)
                    with atomic_write(path) as temporary:
                        pd.DataFrame(rows, columns=COLUMNS).to_csv(temporary, index=False)


def native_pairs(table: pd.DataFrame, reference: str = "regcore") -> str:
    """Mean Dice, its difference from the reference's, and seconds, of the pairs that all contestants have."""
    lines = []
    for cohort, part in table.groupby("cohort"):
        dice = part.pivot(index=["fixed", "moving"], columns="contestant", values="dice").dropna()
        for name in dice:
            line = {"cohort": cohort, "contestant": name, "pairs": len(dice), "Dice": f"{dice[name].mean():.4f}"}
            line |= {"lowest": f"{dice[name].min():.3f}"}
            if name != reference and reference in dice:
                test = paired_comparison(dice[reference].to_numpy(), dice[name].to_numpy())
                line[f"{reference}'s is higher by (95 % interval; p)"] = (
                    f"{100 * test.mean_difference:+.2f} points ({100 * test.ci_low:+.2f} to {100 * test.ci_high:+.2f}; "
                    f"{test.p_wilcoxon:.2g})"
                )
            seconds = part.loc[part["contestant"] == name, "cpu_seconds"].median()
            lines.append(line | {"median CPU seconds": f"{seconds:.1f}"})
    return pd.DataFrame(lines).fillna("").to_markdown(index=False, disable_numparse=True)
