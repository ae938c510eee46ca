"""Methods with a hypernetwork, which generates the network's weights for all hyperparameters of the loss.

Section 3.1 of HyperMorph (Hoopes et al., IPMI 2021), around any method like VoxelMorph: in every training step, each
pair has its own hyperparameters Λ, in the network and in the loss (Eq. 1 to 3).  Afterwards a value is chosen without
training: :mod:`regcore.tuning.amortised`.
"""

import copy
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, Self, TypeVar

import torch
from torch import Tensor, nn

from regcore.errors import InputError, did_you_mean
from regcore.methods.base import LearnedMethod
from regcore.methods.objective import ObjectiveMethod
from regcore.methods.settings.base import MethodSettings
from regcore.methods.settings.hypernetwork import HypernetworkSettings
from regcore.networks.hypernetwork import HypernetworkDesign
from regcore.settings.base import Number

#: Decimals of a value, because inputs are in single precision.
DIGITS = 6

Inner = TypeVar("Inner", bound=ObjectiveMethod)


class Hypernetworked(LearnedMethod, Generic[Inner]):
    """A method with a hypernetwork around it.

    Attributes
    ----------
    inner : ObjectiveMethod
        The wrapped method at the hyperparameters to register with.  Hyperparameters that are not chosen yet are
        None there; then use it only for what does not depend on them.
    """

    settings: HypernetworkSettings
    inner: Inner

    def __init__(self, settings: Mapping[str, Any] | MethodSettings, where: str = "method"):
        super().__init__(settings, where)
        self.inner = self._wrapped()
        try:
            self.design.check_parts()
        except ValueError as error:
            raise InputError(f"{where}: {error}") from error

    @property
    @abstractmethod
    def inner_type(self) -> type[Inner]:
        """The class of the wrapped method."""

    def _wrapped(self) -> Inner:
        """The wrapped method with these settings."""
        return self.inner_type(self.settings.as_settings_of(self.inner_type.settings_type))

    @property
    def design(self) -> HypernetworkDesign:
        """The network."""
        chosen = self.settings
        return HypernetworkDesign(
            self.inner.design, len(self.hyperparameters), chosen.hidden, chosen.final, chosen.generated
        )

    def build(self, ndim: int) -> nn.Module:
        return self.design.build(ndim)

    @property
    def stride(self) -> int:
        return self.design.stride

    def fit_to(self, shape: Sequence[int]) -> None:
        self.inner.fit_to(shape)
        settled = self.inner.settings
        self.settings = self.settings.with_values({key: settled.value(key) for key in settled.attributes()})

    @property
    def observed(self) -> Any:
        return self.inner.observed

    @property
    def observed_draw(self) -> int:
        return self.inner.observed_draw

    @property
    def compares_images(self) -> bool:
        return self.inner.compares_images

    @property
    def ranges(self) -> dict[str, list[Number]]:
        """Each hyperparameter and its range in training, in the order of the hypernetwork's inputs."""
        return self.settings.ranges_of_hyperparameters

    @property
    def hyperparameters(self) -> list[str]:
        return list(self.ranges)

    def at(self, values: Mapping[str, float]) -> Self:
        """The same method and network at other hyperparameters.

        Raises
        ------
        InputError
            The hypernetwork has no such hyperparameter, or the value lies outside the range of training.
        """
        for name, value in values.items():
            if name not in self.hyperparameters:
                raise InputError(f"the model has no hyperparameter '{name}'{did_you_mean(name, self.hyperparameters)}")
            self.settings.check_value(name, value, "")
        return self._at(values)

    def _at(self, values: Mapping[str, float]) -> Self:
        """:meth:`at` without checks."""
        other = copy.copy(self)
        other.settings = self.settings.with_values(values)
        other.inner = other._wrapped()
        return other

    def inputs(self, values: Mapping[str, float]) -> Tensor:
        """A row (1, n) of the hypernetwork's inputs: each hyperparameter's position in its range, 0 to 1."""
        return torch.tensor([[(values[name] - low) / (high - low) for name, (low, high) in self.ranges.items()]])

    def values_of(self, row: Tensor) -> dict[str, float]:
        """The inverse of :meth:`inputs`, for a row (n,)."""
        ranges = zip(self.ranges.items(), row.tolist(), strict=True)
        return {
            name: min(max(round(low + (high - low) * place, DIGITS), low), high)
            for (name, (low, high)), place in ranges
        }

    def predict(self, module: Callable[..., Tensor], fixed: Tensor, moving: Tensor) -> Tensor:
        values = {name: value for name, value in self.values.items() if value is not None}
        if missing := [name for name in self.hyperparameters if name not in values]:
            raise InputError(f"no value is chosen for {', '.join(missing)}: tune the model, or set a value")
        return self.predict_at(module, fixed, moving, self.inputs(values))

    def predict_at(self, module: Callable[..., Tensor], fixed: Tensor, moving: Tensor, inputs: Tensor) -> Tensor:
        """Flow of image pairs as for :meth:`predict`, with ``inputs`` (1, n), or (B, n) with one row per pair."""
        inputs = inputs.to(fixed.device)
        return self.inner.predict(lambda pair: module(pair, inputs), fixed, moving)

    def network_input(self, fixed: Tensor, moving: Tensor) -> Tensor:
        """The wrapped network's input for image pairs."""
        return self.inner.network_input(fixed, moving)

    def displacement(self, flow: Tensor, image: Tensor) -> Tensor:
        return self.inner.displacement(flow, image)

    def displacements(self, flow: Tensor, image: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.inner.displacements(flow, image)

    def refinable(self, flow: Tensor) -> Tensor:
        return self.inner.refinable(flow)

    def losses(self, flow: Tensor, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        return self.inner.losses(flow, batch)

    def training_step(self, module: Callable[..., Tensor], batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Losses, averaged over pairs, each with its own random hyperparameters."""
        drawn = self.draw(len(batch["fixed"]))
        batch, seen = self.inner.augmented(batch)
        flow = self.predict_at(module, seen["fixed"], seen["moving"], drawn)
        deformed = self.inner.deformed(flow, batch)
        found = [
            self._at(self.values_of(row)).inner.losses_of(flow[n : n + 1], _sample(batch, n), _sample(deformed, n))
            for n, row in enumerate(drawn)
        ]
        return {name: torch.stack([losses[name] for losses in found]).mean() for name in found[0]}

    def draw(self, rows: int) -> Tensor:
        """Rows (rows, n) of inputs: uniform, some at an end of a range; drawn from torch's global state."""
        places = torch.rand(rows, len(self.hyperparameters))
        at_end = torch.rand_like(places) < self.settings.end_points
        return torch.where(at_end, places.round(), places)

    def variants_to_validate(self) -> Sequence[Self]:
        """If no values are chosen: the method at values spread over the ranges, five, or three for each of two."""
        if None not in self.values.values():
            return [self]
        count = 5 if len(self.hyperparameters) == 1 else 3
        places = torch.cartesian_prod(*[(torch.arange(count) + 0.5) / count] * len(self.hyperparameters))
        return [self._at(self.values_of(row)) for row in places.reshape(-1, len(self.hyperparameters))]


def _sample(batch: Mapping[str, Any], number: int) -> dict[str, Any]:
    """One pair of a batch."""
    return {name: x[number : number + 1] if isinstance(x, Tensor) else x for name, x in batch.items()}
