"""Methods whose network's weights are written by a hypernetwork, for all values of the loss's hyperparameters.

Section 3.1 of HyperMorph (Hoopes et al., IPMI 2021) around any method of VoxelMorph's kind: at every training step each
pair meets its own hyperparameters Λ, in the network and in the loss (Eq. 1 to 3).  Afterwards a value is chosen without
training anything: :mod:`regcore.tuning.amortised`.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from regcore.errors import InputError, did_you_mean
from regcore.methods.voxelmorph import VoxelMorph
from regcore.networks.hypernetwork import ACTIVATIONS, Hypernetwork, weights_of

#: Decimals of a value: inputs are in single precision.
DIGITS = 6

#: The setting with the hyperparameters and their ranges.
RANGES = {
    "description": "hyperparameters of the hypernetwork, each with the range over which training draws it uniformly",
    "type": "object",
    "minProperties": 1,
    "additionalProperties": {"type": "array", "minItems": 2, "maxItems": 2, "items": {"type": "number"}},
}
HYPERNETWORK = {
    "end_points": {
        "description": "how often training draws one of the two ends of the range instead, for each hyperparameter",
        "type": "number",
        "minimum": 0,
        "maximum": 1,
        "default": 0.1,
    },
    "hidden": {
        "description": "units of the layers of the hypernetwork",
        "type": "array",
        "minItems": 1,
        "items": {"type": "integer", "minimum": 1},
        "default": [64, 64, 64, 64],
    },
    "final": {
        "description": "activation of the last of these layers; ReLU after the others",
        "enum": list(ACTIVATIONS),
        "default": "tanh",
    },
    "generated": {
        "description": "parts of the network whose weights are generated (unet, head); null: all",
        "type": ["array", "null"],
        "minItems": 1,
        "items": {"type": "string"},
        "default": None,
    },
}


class Hypernetworked(VoxelMorph):
    """A method behind a hypernetwork; comes before the method among a class's bases.

    ``limits`` says what the hypernetwork may be told, and between which values that may lie; the setting that is called
    ``ranges_key`` what it is told.  The settings of these names hold the value to register with; null where none is
    chosen yet.
    """

    limits: ClassVar[dict[str, tuple[float, float]]]
    ranges_key: ClassVar[str]

    def _settle_weights(self, given: Mapping, where: str) -> None:
        """Check the ranges, and the values that are given; hyperparameters without one wait for their tuning."""
        chosen = self.settings
        for name, (low, high) in self.ranges.items():
            place = f"{where}.{self.ranges_key}"
            if name not in self.limits:
                raise InputError(f"{place}: no hyperparameter '{name}'{did_you_mean(name, self.limits)}")
            least, most = self.limits[name]
            if not least <= low < high <= most:
                raise InputError(f"{place}: {name}: [{low}, {high}] must ascend within [{least}, {most}]")
        for name in self.limits:
            if name in self.hyperparameters:
                if given.get(name) is None:
                    chosen[name] = None
                else:
                    self._check(name, chosen[name], where)
            elif chosen[name] is None:
                raise InputError(f"{where}: set '{name}', or a range of it in '{self.ranges_key}'")
        self._check_parts(where)

    def _check_parts(self, where: str) -> None:
        """Look whether the network has the parts that are to be generated, without making its weights."""
        with torch.device("meta"):
            network = super().build(len(self.settings.get("attention") or (1, 1)))
        try:
            generated = weights_of(network, self.settings["generated"])
        except ValueError as error:
            raise InputError(f"{where}: 'generated': {error}") from error
        if self.settings.get("checkpointing") and any("encoder." in name for name in generated):
            raise InputError(
                f"{where}: 'checkpointing' computes the encoder again when its generated weights are gone; leave the "
                "encoder out of 'generated', or set 'checkpointing: false'"
            )

    @property
    def ranges(self) -> dict[str, list[float]]:
        """Each hyperparameter and the range over which training draws it, in the order of the hypernetwork's inputs."""
        return self.settings[self.ranges_key]

    @property
    def hyperparameters(self) -> list[str]:
        return list(self.ranges)

    def at(self, values: Mapping[str, float]) -> "Hypernetworked":
        """The same method and network at other hyperparameters.

        Raises
        ------
        InputError
            The hypernetwork is not told such a hyperparameter, or the value lies outside of what it has met.
        """
        for name, value in values.items():
            if name not in self.hyperparameters:
                raise InputError(f"the model has no hyperparameter '{name}'{did_you_mean(name, self.hyperparameters)}")
            self._check(name, value, "")
        return self._at(values)

    def _at(self, values: Mapping[str, float]) -> "Hypernetworked":
        """:meth:`at` without looking."""
        other = copy.copy(self)
        other.settings = {**self.settings, **values}
        other._unlikeness = other._similarity()
        return other

    def _check(self, name: str, value: float, where: str) -> None:
        low, high = self.ranges[name]
        if not low <= value <= high:
            place = f"{where}: " if where else ""
            raise InputError(f"{place}{name} = {value:g} lies outside [{low:g}, {high:g}], where the model is trained")

    def build(self, ndim: int) -> nn.Module:
        chosen = self.settings
        return Hypernetwork(
            super().build(ndim), len(self.hyperparameters), chosen["hidden"], chosen["final"], chosen["generated"]
        )

    @property
    def recordable(self) -> bool:
        return False

    def inputs(self, values: Mapping[str, float]) -> Tensor:
        """A row (1, n) of the hypernetwork's inputs: each hyperparameter's place in its range, 0 to 1."""
        return torch.tensor([[(values[name] - low) / (high - low) for name, (low, high) in self.ranges.items()]])

    def values_of(self, row: Tensor) -> dict[str, float]:
        """The inverse of :meth:`inputs`, for a row (n,)."""
        ranges = zip(self.ranges.items(), row.tolist(), strict=True)
        return {
            name: min(max(round(low + (high - low) * place, DIGITS), low), high)
            for (name, (low, high)), place in ranges
        }

    def predict(self, module: Callable[..., Tensor], fixed: Tensor, moving: Tensor) -> Tensor:
        missing = [name for name, value in self.values.items() if value is None]
        if missing:
            raise InputError(f"no value of {', '.join(missing)} is chosen: tune the model, or give one")
        return self.predict_at(module, fixed, moving, self.inputs(self.values))

    def predict_at(self, module: Callable[..., Tensor], fixed: Tensor, moving: Tensor, inputs: Tensor) -> Tensor:
        """Flow of image pairs as for :meth:`predict`, with ``inputs`` (1, n), or (B, n) for a row to each pair."""
        inputs = inputs.to(fixed.device)
        return super().predict(lambda pair: module(pair, inputs), fixed, moving)

    def training_step(self, module: Callable[..., Tensor], batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Losses, averaged over pairs of which each has drawn its own hyperparameters."""
        drawn = self.draw(len(batch["fixed"]))
        batch, seen = self._augmented(batch)
        flow = self.predict_at(module, seen["fixed"], seen["moving"], drawn)
        deformed = self._deformed(flow, batch)
        found = [
            self._at(self.values_of(row))._losses(flow[n : n + 1], _sample(batch, n), _sample(deformed, n))
            for n, row in enumerate(drawn)
        ]
        return {name: torch.stack([losses[name] for losses in found]).mean() for name in found[0]}

    def draw(self, rows: int) -> Tensor:
        """Rows (rows, n) of inputs: uniform, some at an end; they follow torch's seed."""
        places = torch.rand(rows, len(self.hyperparameters))
        at_end = torch.rand_like(places) < self.settings["end_points"]
        return torch.where(at_end, places.round(), places)

    def looks(self) -> Sequence["Hypernetworked"]:
        """The method at values that cover the ranges evenly, where none is chosen: five, or three for each of two."""
        if None not in self.values.values():
            return [self]
        count = 5 if len(self.hyperparameters) == 1 else 3
        places = torch.cartesian_prod(*[(torch.arange(count) + 0.5) / count] * len(self.hyperparameters))
        return [self._at(self.values_of(row)) for row in places.reshape(-1, len(self.hyperparameters))]


def _sample(batch: Mapping[str, Any], number: int) -> dict[str, Any]:
    """One pair of a batch."""
    return {name: x[number : number + 1] if isinstance(x, Tensor) else x for name, x in batch.items()}
