"""One name of a study: a method with its settings, or a variant of one in a paper's experiment.

An :class:`Entry` is made once for each plan, without torch.  Its method is loaded when it is first asked for.
"""

from __future__ import annotations

import json
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
from regcore.settings.fingerprint import fingerprint
from regcore.study.layout import Layout
from regcore.tuning import search as tuning

#: What the study says of an entry beside settings of its method: the method, and a search for hyperparameters or cells.
ENTRY_KEYS = ("method", tuning.KEY, cells.KEY)


class Entry:
    """What a study says under one name, and what follows from it before anything runs.

    Parameters
    ----------
    name : str
    values : mapping
        As in the study's file.
    peers : mapping of str → Entry, optional
        All entries of the study: those that it may start from.
    files : Layout, optional
        Where the study's results lie.

    Attributes
    ----------
    training_pairs : EligiblePairs, PooledPairs or None
        The pairs that training draws from; None where nothing is trained.
    fields : dict of str → str
        Test pair → path of its field, where a field was made elsewhere.
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
        """All but the method, which another process loads itself."""
        return {key: value for key, value in vars(self).items() if key != "made"}

    # ---- its method

    @property
    def where(self) -> str:
        """The key that messages name."""
        return f"methods.{self.name}"

    @property
    def method(self) -> str:
        """The method: what the study says, or the name."""
        return self.values.get("method", self.name)

    @property
    def info(self) -> MethodInfo:
        """What the registry knows of the method."""
        return method_info(self.method, self.where)

    @property
    def settings(self) -> dict[str, Any]:
        """What the study sets of the method."""
        return {key: value for key, value in self.values.items() if key not in ENTRY_KEYS}

    @cached_property
    def checked(self) -> MethodSettings:
        """The settings with all defaults, checked as far as that is possible without loading the method."""
        return read_settings(self.method, self.settings, self.where)

    @cached_property
    def made(self) -> Any:
        """The method with its settings checked, to be asked; :meth:`make` gives one to train or register with."""
        return self.make()

    def make(self, values: Mapping[str, Any] | None = None) -> Any:
        """Load the method.

        Parameters
        ----------
        values : mapping, optional
            Settings that a search has found, beside those of the study.

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
        """Whether the study trains it."""
        return self.info.learned

    @property
    def start(self) -> str | None:
        """Name of the entry that it refines; None where it refines none."""
        return self.checked.start if isinstance(self.checked, RefineSettings) else None

    @property
    def network(self) -> str:
        """The method that its network was trained by: its own, or that of the model it takes over."""
        if not self.info.pretrained:
            return self.method
        return json.loads((self.made.folder / "model.json").read_text())["method"]

    @property
    def methods_run(self) -> set[str]:
        """The methods whose code it runs: its own, and that of the network that it takes over or refines."""
        return {self.method, self.network, *(self.peers[name].network for name in [self.start] if name is not None)}

    @property
    def but_start(self) -> str:
        """Fingerprint of all that it is but its random start."""
        same = {key: value for key, value in self.values.items() if key not in ("method", "replicate")}
        return fingerprint(self.method, same)

    # ---- its training

    @property
    def training(self) -> TrainingSettings:
        """The settings of its training."""
        if not isinstance(self.checked, TrainingSettings):
            raise ValueError(f"{self.where}: '{self.method}' is not trained")
        return self.checked

    @property
    def training_subjects(self) -> int | None:
        """How many subjects it is trained on; None: all."""
        return self.training.training_subjects

    @property
    def training_contrasts(self) -> list[list[str]] | None:
        """The pairings of contrasts that it is trained on; None: those of the study."""
        return self.training.training_contrasts

    @cached_property
    def search(self) -> tuning.Search | None:
        """The search for its hyperparameters, if it has one; ``tune: null`` asks for none."""
        if self.values.get(tuning.KEY) is None:
            return None
        if not self.learned:
            raise InputError(
                f"{self.where}.{tuning.KEY}: '{self.method}' is not trained; only trained methods are searched"
            )
        return tuning.read_search(self.values, self.name)

    @cached_property
    def cell_search(self) -> cells.CellSearch | None:
        """The search for its cells and objective, if it has one; ``autosearch: null`` asks for none."""
        if self.values.get(cells.KEY) is None:
            return None
        where = f"{self.where}.{cells.KEY}"
        if self.method != "autoreg":
            raise InputError(f"{where}: only 'autoreg' is searched so; for hyperparameters of other methods see 'tune'")
        if self.search is not None:
            raise InputError(f"{where}: 'tune' is set as well; leave one of the two out")
        return cells.read_cell_search(self.name, {name: peer.values for name, peer in self.peers.items()})

    # ---- its files

    @property
    def model(self) -> str | None:
        """Name of the entry whose trained model it registers with: itself, or the one it refines."""
        return self.name if self.learned else self.start

    @property
    def model_folder(self) -> Path | None:
        """Folder of the model that it registers with, of this study or another; None where it needs none."""
        if self.info.pretrained:
            return self.made.folder
        return None if self.model is None else self.files.model(self.model)

    @property
    def architecture(self) -> Path | None:
        """File of its architecture, which a person may edit: what its search finds, or what the study names."""
        if self.cell_search is not None:
            return self.files.architecture(self.name) / cells.FOUND
        return self.checked.architecture_file if isinstance(self.checked, AutoRegSettings) else None

    @property
    def searches_before(self) -> list[Path]:
        """Files that its search for cells begins from, or takes as long as."""
        if self.cell_search is None:
            return []
        others = self.cell_search.others
        found = [self.files.architecture(other) / file for other in others for file in (cells.FOUND, cells.FACTS)]
        start = self.cell_search.settings.start
        return found if start is None or start in others else [*found, cells.file_of(start)]

    # ---- its checks

    def check(self) -> None:
        """Load the method and check its settings and searches, which takes seconds.

        Raises
        ------
        InputError
            Naming the key that is wrong, and the remedy.
        """
        if self.search is not None:
            tuning.check_search(self.search, self.made, self.make, f"{self.where}.{tuning.KEY}.ranges")
        _ = self.made, self.cell_search  # both raise where something is wrong

    def check_start(self, settings: bool) -> None:
        """Check what it refines; ``settings``: also whether that compares images, for which it is loaded."""
        if not self.info.refines:
            return
        learned = [name for name, peer in self.peers.items() if peer.learned]
        if self.start not in learned:
            raise InputError(
                f"{self.where}: 'start' must be a learned method of the study, not {self.start!r}"
                f"{did_you_mean(str(self.start), learned)}"
            )
        if settings:
            from regcore.methods.refine import require_comparing_images

            require_comparing_images(self.peers[self.start].made, f"{self.where}.start: {self.start}")

    def unavailable(self, ndim: int) -> str | None:
        """Why it cannot run here, and what to do about it; None where it can."""
        if ndim not in self.info.dimensions:
            return f"it registers {self.info.dimensions[0]}-D images alone, and these are {ndim}-D"
        return self.checked.missing()

    @property
    def trained_with(self) -> list[Any]:
        """Its method with the settings of the study, and with both ends of its search."""
        points = self.search.ends() if self.search is not None else []
        return [self.made, *(self.make(point) for point in points)]
