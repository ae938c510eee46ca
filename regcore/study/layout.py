"""Paths of a study's results below ``results/<study>``."""

from dataclasses import dataclass
from pathlib import Path

#: Files in a model's folder that describe the search it was found by.
TRIALS, FOUND = "trials.csv", "search.json"


@dataclass(frozen=True)
class Layout:
    """Paths of everything that a study writes.

    Parameters
    ----------
    folder : Path
        ``results/<study>``.

    Examples
    --------
    >>> from pathlib import Path
    >>> from regcore.study.layout import Layout
    >>> files = Layout(Path("results/small"))
    >>> print(files.model("voxelmorph"), files.metrics("syn"), files.trial("voxelmorph", slot=3))
    results/small/models/voxelmorph results/small/metrics/syn.parquet results/small/tuning/voxelmorph/trials/003.json
    """

    folder: Path

    @property
    def checkpoints(self) -> Path:
        """State of unfinished trainings and searches."""
        return self.folder / "checkpoints"

    def model(self, name: str) -> Path:
        """Folder of a trained model."""
        return self.folder / "models" / name

    def metrics(self, name: str) -> Path:
        """Scores of the test pairs as tidy rows, for a method or the true fields."""
        return self.folder / "metrics" / f"{name}.parquet"

    def fields(self, name: str, part: str) -> Path:
        """Folder of one part of the test pairs' fields, for a method or the true fields."""
        return self.folder / "fields" / name / part

    def prepared(self, part: str) -> Path:
        """Folder of one part of the scans on the common grid."""
        return self.folder / "prepared" / part

    def cohort(self, file: str) -> Path:
        """A table, or a folder of scans, of the embedded cohort."""
        return self.folder / "cohort" / file

    def search(self, name: str) -> Path:
        """Folder of the journal and trials of a search for hyperparameters."""
        return self.folder / "tuning" / name

    def trial(self, name: str, slot: int) -> Path:
        """Result of a trial."""
        return self.search(name) / "trials" / f"{slot:03d}.json"

    def architecture(self, name: str) -> Path:
        """Folder of the result of a search for cells or the objective."""
        return self.folder / "architectures" / name

    def sweep(self, name: str) -> Path:
        """Scores of the networks of a sweep."""
        return self.folder / "sweeps" / f"{name}.parquet"

    def optima(self, name: str) -> Path:
        """Tuned values of each hypernetwork in a sweep."""
        return self.folder / "sweeps" / f"{name}.csv"

    def features(self, name: str) -> Path:
        """Variation of a network's features with contrast."""
        return self.folder / "features" / f"{name}.csv"

    def weights(self, name: str) -> Path:
        """Measures of a network's weight volumes."""
        return self.folder / "weights" / f"{name}.csv"

    def weight_volumes(self, name: str) -> Path:
        """The weight volumes of one pair."""
        return self.folder / "weights" / f"{name}.safetensors"

    def table(self, file: str) -> Path:
        """A table of the report."""
        return self.folder / "tables" / file

    def figure(self, file: str) -> Path:
        """A figure of the report."""
        return self.folder / "figures" / file

    def experiment(self, paper: str, file: str) -> Path:
        """A table or figure of a paper."""
        return self.folder / "experiments" / paper / file
