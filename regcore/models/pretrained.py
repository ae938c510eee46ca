"""A network that was trained elsewhere: another study's model, on this study's pairs."""

import json
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
from regcore.models.released import released_models


class Pretrained(Method):
    """Register with the folder of a trained model, without training it.

    The network sees the study's common grid, whatever grid it was trained on: what it learned in voxels it does in
    voxels, so a study at the spacing of its training serves it best.
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
        """Of the images that the model registers."""
        content = json.loads((self.folder / "model.json").read_text())
        return len(content["grid"]["shape"]) if content["grid"] else content["ndim"]

    @property
    def method(self) -> LearnedMethod:
        """The model's method with its weights, which are read when they are needed."""
        if self._method is None:
            from regcore.models.trained import load_model

            method = load_model(self.folder).method
            if self.settings.values:
                if not isinstance(method, Hypernetworked):
                    raise InputError(f"{self._where}: 'values' change nothing, the model has no hypernetwork")
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
        folder = released_models().get(named, Path(named))
        if not (folder / "model.json").is_file():
            raise InputError(
                f"{self._where}: {named} is no trained model (no model.json); train it first, or mend the path"
            )
        return folder
