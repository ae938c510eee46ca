"""The method ``pretrained``: an existing model, for instance of another study, on this study's pairs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch

from regcore.errors import InputError
from regcore.images.volume import Volume
from regcore.methods.base import LearnedMethod, Method, Registration
from regcore.methods.hypernetworked import Hypernetworked
from regcore.methods.settings.base import MethodSettings
from regcore.methods.settings.pretrained import PretrainedSettings
from regcore.models.model_json import ndim_of_model
from regcore.models.released import named_model


class Pretrained(Method):
    """Register with the folder of a trained model, without training it.

    The network sees the study's common grid, whatever grid it was trained on.  It learned displacements in voxels, so a
    study with the spacing of its training suits it best.

    Parameters
    ----------
    settings : mapping or MethodSettings
        ``model``: a folder, or the name of a released model; ``values`` of a hypernetwork's hyperparameters.
    where : str
        Name of the settings in messages.

    Examples
    --------
    >>> from regcore.models.pretrained import Pretrained
    >>> method = Pretrained({"model": "synthmorph-2d"})  # released with regcore
    >>> method.ndim, method.folder.name
    (2, 'synthmorph-2d')
    """

    settings_type: ClassVar = PretrainedSettings
    pretrained: ClassVar = True
    settings: PretrainedSettings

    def __init__(self, settings: Mapping[str, Any] | MethodSettings, where: str = "method"):
        super().__init__(settings, where)
        self._where = where
        self._method: LearnedMethod | None = None

    @property
    def ndim(self) -> int:
        """Number of dimensions of the model's images."""
        return ndim_of_model(self.folder)

    @property
    def method(self) -> LearnedMethod:
        """The model's method with its weights, which are read on first use."""
        if self._method is None:
            from regcore.models.trained import load_model

            method = load_model(self.folder).method
            if self.settings.values:
                if not isinstance(method, Hypernetworked):
                    raise InputError(f"{self._where}: 'values' have no effect: the model has no hypernetwork")
                method = method.at(self.settings.values)
            self._method = method
        return self._method

    @property
    def device(self) -> torch.device:
        return self.method.device

    def register(self, fixed: Volume, moving: Volume) -> Registration:
        if fixed.grid.ndim != self.ndim:
            raise InputError(f"{self._where}: a {self.ndim}-D model cannot register {fixed.grid.ndim}-D images")
        return self.method.register(fixed, moving)

    @property
    def folder(self) -> Path:
        """Folder of the model."""
        named = self.settings.model
        if named is None:
            raise InputError(f"{self._where}: 'model' must be the folder of a trained model")
        folder = named_model(named)
        if not (folder / "model.json").is_file():
            raise InputError(
                f"{self._where}: {named} is not a trained model (no model.json); train it first, or correct the path"
            )
        return folder
