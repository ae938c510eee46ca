"""An entry of a study: a method with its settings, or a variant of one for an experiment.

An :class:`Entry` is made once per plan, without torch.  Its method is loaded on first use.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from regcore.autoreg import search as cells
from regcore.cohort.pair_pool import EligiblePairs, PooledPairs
from regcore.errors import InputError, did_you_mean
from regcore.methods import MethodInfo, make_method, method_info, read_settings
from regcore.methods.settings.autoreg import AutoRegSettings
from regcore.methods.settings.base import MethodSettings
from regcore.methods.settings.refine import RefineSettings
from regcore.methods.settings.training import TrainingSettings
from regcore.models.model_json import read_model_json
from regcore.models.released import named_model, released_models
from regcore.settings.fingerprint import fingerprint
from regcore.study.layout import Layout
from regcore.tuning import search as tuning

#: Keys of an entry that are not settings of its method: the method itself and its searches.
ENTRY_KEYS = ("method", tuning.KEY, cells.KEY)


class Entry:
    """An entry of a study, and what follows from it before anything runs.

    Parameters
    ----------
    name : str
        Key of the entry in the study file.
    values : mapping
        As in the study file.
    peers : mapping of str → Entry, optional
        All entries of the study, which it may start from.
    files : Layout, optional
        Paths of the study's results.

    Attributes
    ----------
    training_pairs : EligiblePairs, PooledPairs or None
        The pairs that training draws from; None if nothing is trained.
    fields : dict of str → str
        Test pair → path of its field, for imported fields.

    Examples
    --------
    >>> from regcore.study.entry import Entry
    >>> search = {"ranges": {"learning_rate": [1e-5, 1e-3]}}
    >>> entry = Entry("smooth", {"method": "voxelmorph", "lambda": 2, "tune": search})
    >>> entry.method, entry.settings, entry.learned
    ('voxelmorph', {'lambda': 2}, True)
    >>> entry.search.trials, str(entry.model_folder)
    (50, 'results/models/smooth')
    """

    def __init__(
        self,
        name: str,
        values: Mapping[str, Any],
        peers: Mapping[str, Entry] | None = None,
        files: Layout | None = None,
    ):
        self.name, self.values = name, values
        self.peers = {name: self} if peers is None else peers
        self.files = files or Layout(Path("results"))
        self.training_pairs: EligiblePairs | PooledPairs | None = None
        self.fields: dict[str, str] = {}

    def __getstate__(self) -> dict[str, Any]:
        """All but the method, which another process loads again."""
        return {key: value for key, value in vars(self).items() if key != "made"}

    # ---- its method

    @property
    def where(self) -> str:
        """The key of the entry in messages."""
        return f"methods.{self.name}"

    @property
    def method(self) -> str:
        """The method: as the study says, or the entry's name."""
        return self.values.get("method", self.name)

    @property
    def info(self) -> MethodInfo:
        """What the registry knows about the method."""
        return method_info(self.method, self.where)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that the study gives."""
        return {key: value for key, value in self.values.items() if key not in ENTRY_KEYS}

    @cached_property
    def checked(self) -> MethodSettings:
        """The settings with all defaults, checked as far as possible without loading the method."""
        return read_settings(self.method, self.settings, self.where)

    @cached_property
    def made(self) -> Any:
        """The method with checked settings, for queries. To train or register, use :meth:`make`."""
        return self.make()

    def make(self, values: Mapping[str, Any] | None = None) -> Any:
        """Load the method.

        Parameters
        ----------
        values : mapping, optional
            Settings found by a search, in addition to the study's.

        Returns
        -------
        regcore.methods.base.Method

        Raises
        ------
        InputError
            The method or one of its settings is unknown or invalid.
        """
        return make_method(self.method, {**self.settings, **(values or {})}, self.where)

    @property
    def learned(self) -> bool:
        """Whether the study trains this entry."""
        return self.info.learned

    @property
    def start(self) -> str | None:
        """The network that it refines: a learned entry, or a model by its folder or released name; None for none."""
        return self.checked.start if isinstance(self.checked, RefineSettings) else None

    @property
    def refined(self) -> Entry | None:
        """The entry whose network it refines; None if it refines that of an existing model, or none."""
        peer = None if self.start is None else self.peers.get(self.start)
        return peer if peer is not None and peer.learned else None

    @property
    def existing_model(self) -> Path | None:
        """Folder of the model that it uses or refines and that the study does not train; None if there is none."""
        if self.info.pretrained:
            return self.made.folder
        return None if self.start is None or self.refined is not None else named_model(self.start)

    @property
    def network(self) -> str:
        """The method that trained its network: its own, or that of the existing model it uses."""
        if not self.info.pretrained:
            return self.method
        return read_model_json(self.made.folder)["method"]

    @property
    def methods_run(self) -> set[str]:
        """The methods whose code it runs: its own, and that of the network it uses or refines."""
        if self.refined is not None:
            return {self.method, self.refined.network}
        existing = self.existing_model
        return {self.method} if existing is None else {self.method, read_model_json(existing)["method"]}

    @property
    def but_start(self) -> str:
        """Fingerprint of everything but the random start."""
        same = {key: value for key, value in self.values.items() if key not in ("method", "replicate")}
        return fingerprint(self.method, same)

    # ---- its training

    @property
    def training(self) -> TrainingSettings:
        """The training settings."""
        if not isinstance(self.checked, TrainingSettings):
            raise ValueError(f"{self.where}: '{self.method}' is not trained")
        return self.checked

    @property
    def training_subjects(self) -> int | None:
        """Number of training subjects; None for all."""
        return self.training.training_subjects

    @property
    def training_contrasts(self) -> list[list[str]] | None:
        """Pairings of contrasts for training; None for those of the study."""
        return self.training.training_contrasts

    @property
    def existing_training_pairs(self) -> EligiblePairs | PooledPairs:
        """``training_pairs``, where there have to be some."""
        if self.training_pairs is None:
            raise ValueError(f"{self.where}: no training pairs are drawn for it")
        return self.training_pairs

    @property
    def existing_search(self) -> tuning.Search:
        """:attr:`search`, where there has to be one."""
        if self.search is None:
            raise ValueError(f"{self.where}: its hyperparameters are not searched")
        return self.search

    @property
    def existing_cell_search(self) -> cells.CellSearch:
        """:attr:`cell_search`, where there has to be one."""
        if self.cell_search is None:
            raise ValueError(f"{self.where}: its cells and objective are not searched")
        return self.cell_search

    @cached_property
    def search(self) -> tuning.Search | None:
        """The search for its hyperparameters, or None; ``tune: null`` turns a search off."""
        if self.values.get(tuning.KEY) is None:
            return None
        if not self.learned:
            raise InputError(
                f"{self.where}.{tuning.KEY}: '{self.method}' is not trained; only trained methods can be tuned"
            )
        return tuning.read_search(self.values, self.name)

    @cached_property
    def cell_search(self) -> cells.CellSearch | None:
        """The search for its cells and objective, or None; ``autosearch: null`` turns a search off."""
        if self.values.get(cells.KEY) is None:
            return None
        where = f"{self.where}.{cells.KEY}"
        if self.method != "autoreg":
            raise InputError(f"{where}: only 'autoreg' has this search; for other methods use 'tune'")
        if self.search is not None:
            raise InputError(f"{where}: 'tune' is set as well; remove one of the two")
        return cells.read_cell_search(self.name, {name: peer.values for name, peer in self.peers.items()})

    # ---- its files

    @property
    def model(self) -> str | None:
        """Name of the entry whose trained model is used to register: this one, or the one it refines."""
        if self.learned:
            return self.name
        return None if self.refined is None else self.refined.name

    @property
    def model_folder(self) -> Path | None:
        """Folder of the model used to register, of this study or another; None if none is needed."""
        return self.existing_model if self.model is None else self.files.model(self.model)

    @property
    def architecture(self) -> Path | None:
        """File of its architecture, found by a search or named in the study. It may be edited by hand."""
        if self.cell_search is not None:
            return self.files.architecture(self.name) / cells.FOUND
        return self.checked.architecture_file if isinstance(self.checked, AutoRegSettings) else None

    @property
    def searches_before(self) -> list[Path]:
        """Files that its search for cells starts from or takes its time limit from."""
        if self.cell_search is None:
            return []
        others = self.cell_search.others
        found = [self.files.architecture(other) / file for other in others for file in (cells.FOUND, cells.FACTS)]
        start = self.cell_search.settings.start
        return found if start is None or start in others else [*found, cells.file_of(start)]

    # ---- its checks

    def check(self) -> None:
        """Load the method, and check its settings and searches. This takes seconds.

        Raises
        ------
        InputError
            Names the wrong key and the remedy.
        """
        if self.search is not None:
            tuning.check_search(self.search, self.made, self.make, f"{self.where}.{tuning.KEY}.ranges")
        _ = self.made, self.cell_search  # both raise if something is wrong

    def check_start(self, settings: bool) -> None:
        """Check what it refines. With ``settings``, load that method and check that the settings fit it."""
        if not self.info.refines:
            return
        folder = self.existing_model
        if self.refined is None and (folder is None or not (folder / "model.json").is_file()):
            known = [*(name for name, peer in self.peers.items() if peer.learned), *released_models()]
            raise InputError(
                f"{self.where}: 'start' must be a learned method of the study or a trained model, not {self.start!r}"
                f"{did_you_mean(str(self.start), known)}"
            )
        if settings:
            self.made.check_start(self._method_of_start)

    @property
    def _method_of_start(self) -> Any:
        """The method of the network that it refines, without its weights."""
        if self.refined is not None:
            return self.refined.made
        folder = self.existing_model
        assert folder is not None  # what it refines is checked first
        content = read_model_json(folder)
        return make_method(content["method"], content["settings"], f"{folder}/model.json")

    def unavailable(self, ndim: int) -> str | None:
        """Why it cannot run here and what to do about it; None if it can."""
        if ndim not in self.info.dimensions:
            return f"it registers only {self.info.dimensions[0]}-D images, and these are {ndim}-D"
        return self.checked.missing()

    @property
    def trained_with(self) -> list[Any]:
        """Its method with the study's settings, and at both ends of its search."""
        points = self.search.ends() if self.search is not None else []
        return [self.made, *(self.make(point) for point in points)]
