"""Reading a study's results: scores, models, searches, sweeps, fields and tables.

Reports and papers read a study only through :class:`Results`.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from regcore.alignment.preprocess import prepare_image, read_scan
from regcore.autoreg.search import FACTS, TRACE, read_found
from regcore.cohort.labels import scored_labels
from regcore.experiments.settings import ExperimentSettings
from regcore.images.field import DisplacementField, read_field
from regcore.images.volume import Volume, read_labels, read_volume
from regcore.models.model_json import read_model_json
from regcore.process.files import read_json
from regcore.study.layout import FOUND, TRIALS, Layout
from regcore.study.plan import Plan
from regcore.study.stages.register import read_facts
from regcore.training.checkpoint import load_tensors

#: What to do about a damaged file of a study.
AGAIN = "delete its folder and run the study again"


class Results:
    """The results of a study: where reports and papers read them.

    Parameters
    ----------
    plan : Plan
        The study.

    Examples
    --------
    >>> import tempfile
    >>> import pandas as pd
    >>> from regcore.study.plan import plan_study
    >>> from regcore.study.results import Results
    >>> cohort = {"embedded": {"train": 2, "validation": 2, "test": 2}}
    >>> config = {"study": "small", "cohort": cohort, "methods": {"affine": {}}}
    >>> scores = pd.DataFrame({"pair": ["a--b", "a--b"], "metric": "dice", "label": [1, 2], "value": [0.5, 0.75]})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     results = Results(plan_study(config, folder, check=False))
    ...     results.files.metrics("affine").parent.mkdir(parents=True)
    ...     scores.to_parquet(results.files.metrics("affine"))
    ...     results.of_pairs("affine")["a--b"].item()
    0.625
    """

    def __init__(self, plan: Plan):
        self.plan = plan
        self.files = Layout(plan.folder)

    @property
    def experiments(self) -> ExperimentSettings:
        """The study's settings of the papers' experiments."""
        return self.plan.settings.experiments

    # ---- scores

    def scores(self, name: str) -> pd.DataFrame:
        """Tidy rows of an entry, or of the true fields."""
        return pd.read_parquet(self.files.metrics(name))

    def of_pairs(self, name: str, metric: str = "dice") -> pd.Series:
        """Mean of a metric for each test pair that has it."""
        rows = self.scores(name)
        return rows[rows["metric"] == metric].groupby("pair")["value"].mean()

    def labels(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The scored labels with Dice in tidy rows: ``index name group``; none if every pair failed."""
        found = set(rows.loc[rows["metric"] == "dice", "label"])
        if not found:
            return pd.DataFrame(columns=["index", "name", "group"])
        return scored_labels(found, self.plan.settings.labels, self.plan.label_table)

    # ---- models

    def model(self, name: str) -> dict[str, Any]:
        """The ``model.json`` of a trained network."""
        return read_model_json(self.files.model(name))

    def training(self, name: str) -> dict[str, Any]:
        """Time, memory and outcome of a training."""
        return self.model(name)["training"]

    def history(self, name: str) -> pd.DataFrame:
        """Losses and validation Dice over a training."""
        return pd.read_csv(self.files.model(name) / "history.csv")

    # ---- searches

    def trials(self, name: str) -> pd.DataFrame:
        """One row per trial of a search for hyperparameters."""
        return pd.read_csv(self.files.model(name) / TRIALS)

    def search(self, name: str) -> dict[str, Any]:
        """Result of a search for hyperparameters."""
        return read_json(self.files.model(name) / FOUND, AGAIN)

    def cell_search(self, name: str) -> dict[str, Any]:
        """Time and memory of a search for cells or the objective."""
        return read_json(self.files.architecture(name) / FACTS, AGAIN)

    def trace(self, name: str) -> pd.DataFrame:
        """One row per epoch, over all stages of a search for cells or the objective."""
        return pd.read_csv(self.files.architecture(name) / TRACE)

    def architecture(self, name: str) -> dict[str, Any]:
        """Result of a search for cells or the objective, from :func:`regcore.autoreg.search.read_found`."""
        return read_found(self.files.architecture(name), name)

    # ---- sweeps, features and weight volumes

    def sweep(self, name: str) -> pd.DataFrame:
        """Scores of the networks of a sweep, as written by :mod:`regcore.study.stages.sweep`."""
        return pd.read_parquet(self.files.sweep(name))

    def optima(self, name: str) -> pd.DataFrame:
        """Tuned values of each hypernetwork of a sweep, by entry."""
        return pd.read_csv(self.files.optima(name)).set_index("entry")

    def features(self, name: str) -> pd.DataFrame:
        """Variation of a network's features with contrast, one row per layer."""
        return pd.read_csv(self.files.features(name))

    def weights(self, name: str) -> pd.DataFrame:
        """Measures of a network's weight volumes, one row per test pair and setting."""
        return pd.read_csv(self.files.weights(name))

    def weight_volumes(self, name: str) -> tuple[dict[str, Tensor], str]:
        """The weight volumes and displacements of one pair, and the pair."""
        tensors, facts = load_tensors(self.files.weight_volumes(name))
        return tensors, facts["pair"]

    # ---- pairs and scans

    def scans_of(self, pair: str) -> tuple[str, str]:
        """The fixed and the moving scan of a test pair."""
        table = self.plan.pairs_of("test").set_index("pair")
        return str(table.at[pair, "fixed"]), str(table.at[pair, "moving"])

    def field(self, name: str, pair: str) -> DisplacementField:
        """The field of a test pair."""
        return read_field(self.plan.field(name, pair))

    def facts(self, name: str) -> Iterator[dict[str, Any]]:
        """The report of each field of an entry, read on demand."""
        for pair in self.plan.pairs_of("test")["pair"]:
            yield read_facts(Path(self.plan.field(name, pair)))

    def image(self, scan: str) -> Volume:
        """A scan as in its file."""
        return read_volume(self.plan.cohort.existing(scan, "image"))

    def label_map(self, scan: str) -> Volume:
        """The labels of a scan."""
        return read_labels(self.plan.cohort.existing(scan, "labels"))

    def normalised(self, scan: str) -> Volume:
        """A scan on its own grid, normalised as for the methods."""
        settings = self.plan.settings.preprocess
        return prepare_image(read_scan(self.plan.cohort.files(scan), settings), settings)

    def prepared(self, scan: str) -> Volume:
        """A scan on the common grid."""
        return read_volume(f"{self.plan.prepared(scan)}.nii")

    def common_grid(self) -> dict[str, Any]:
        """``common_shape`` and ``common_spacing``."""
        return read_json(f"{self.plan.prepared(self.plan.scans[0])}.json", AGAIN)

    # ---- the report

    def table(self, file: str, text: Iterable[str]) -> pd.DataFrame:
        """A table of the report. The columns ``text`` hold names, such as 1 or NA; only empty cells are NaN."""
        path = self.files.table(file)
        return pd.read_csv(path, dtype=dict.fromkeys(text, str), keep_default_na=False, na_values=[""])
