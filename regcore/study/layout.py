"""Where the results of a study lie, below ``results/<study>``."""

from dataclasses import dataclass
from pathlib import Path

#: What the folder of a model says about the search that it is the best of.
TRIALS, FOUND = "trials.csv", "search.json"


@dataclass(frozen=True)
class Layout:
    """Paths of what a study writes.

    Parameters
    ----------
    folder : Path
        ``results/<study>``.
    """

    folder: Path

    @property
    def checkpoints(self) -> Path:
        """State of trainings and searches that are not finished."""
        return self.folder / "checkpoints"

    def model(self, name: str) -> Path:
        """Folder of a trained model."""
        return self.folder / "models" / name

    def metrics(self, name: str) -> Path:
        """Tidy rows of the test pairs, of a method or the truth."""
        return self.folder / "metrics" / f"{name}.parquet"

    def fields(self, name: str, part: str) -> Path:
        """Folder with some of the test pairs' fields, of a method or the truth."""
        return self.folder / "fields" / name / part

    def prepared(self, part: str) -> Path:
        """Folder with some of the scans on the common grid."""
        return self.folder / "prepared" / part

    def cohort(self, file: str) -> Path:
        """A table, or a folder of scans, of the embedded cohort."""
        return self.folder / "cohort" / file

    def search(self, name: str) -> Path:
        """Where a search for hyperparameters keeps its journal and its trials."""
        return self.folder / "tuning" / name

    def trial(self, name: str, slot: int) -> Path:
        """What a trial of a search found."""
        return self.search(name) / "trials" / f"{slot:03d}.json"

    def architecture(self, name: str) -> Path:
        """Where a search for cells or the objective leaves what it found."""
        return self.folder / "architectures" / name

    def sweep(self, name: str) -> Path:
        """Scores of the networks of a sweep."""
        return self.folder / "sweeps" / f"{name}.parquet"

    def optima(self, name: str) -> Path:
        """What tuning each hypernetwork of a sweep found."""
        return self.folder / "sweeps" / f"{name}.csv"

    def features(self, name: str) -> Path:
        """How much the features of a network vary with contrast."""
        return self.folder / "features" / f"{name}.csv"

    def weights(self, name: str) -> Path:
        """Measures of the weight volumes of a network."""
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
