"""Settings of a hypernetwork, which writes the weights of another method's network."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from regcore.errors import InputError, did_you_mean
from regcore.methods.settings.base import Share
from regcore.methods.settings.training import TrainingSettings
from regcore.settings.base import Count, Number

#: Hyperparameter → the range over which training draws it.
Ranges = Annotated[dict[str, Annotated[list[Number], Field(min_length=2, max_length=2)]], Field(min_length=1)]
RANGES = "hyperparameters of the hypernetwork, each with the range over which training draws it uniformly"
#: The parts of TransMorph that are generated where a study says nothing: those after the encoder.
AFTER_ENCODER = ["looks", "decoders", "heads"]


class HypernetworkSettings(TrainingSettings):
    """The hypernetwork, and which hyperparameters it is told.

    The setting that is called ``ranges_key`` holds their ranges.  The settings of their names hold the value to
    register with; null where none is chosen yet.
    """

    ranges_key: ClassVar[str]

    end_points: Share = Field(
        0.1,
        description="how often training draws one of the two ends of the range instead, for each hyperparameter",
    )
    hidden: Annotated[list[Count], Field(min_length=1)] = Field(
        [64, 64, 64, 64], description="units of the layers of the hypernetwork"
    )
    final: Literal["tanh", "relu"] = Field(
        "tanh", description="activation of the last of these layers; ReLU after the others"
    )
    generated: Annotated[list[str], Field(min_length=1)] | None = Field(
        None, description="parts of the network whose weights are generated (unet, head); null: all"
    )

    @property
    def limits(self) -> Mapping[str, tuple[float, float]]:
        """What the hypernetwork may be told, and between which values that may lie."""
        raise NotImplementedError

    @property
    def ranges_of_hyperparameters(self) -> dict[str, list[Number]]:
        """Each hyperparameter and its range, in the order of the hypernetwork's inputs."""
        return self.value(self.ranges_key)

    def check_value(self, name: str, value: Number, where: str) -> None:
        """Raise :class:`InputError` for a value of a hyperparameter that training does not meet."""
        low, high = self.ranges_of_hyperparameters[name]
        if not low <= value <= high:
            place = f"{where}: " if where else ""
            raise InputError(f"{place}{name} = {value:g} lies outside [{low:g}, {high:g}], where the model is trained")

    def settle_hyperparameters(self, given: Mapping[str, Any], where: str) -> None:
        """Check the ranges, and the values that are given; hyperparameters without one wait for their tuning."""
        told = self.ranges_of_hyperparameters
        for name, (low, high) in told.items():
            place = f"{where}.{self.ranges_key}"
            if name not in self.limits:
                raise InputError(f"{place}: no hyperparameter '{name}'{did_you_mean(name, self.limits)}")
            least, most = self.limits[name]
            if not least <= low < high <= most:
                raise InputError(f"{place}: {name}: [{low}, {high}] must ascend within [{least}, {most}]")
        for name in self.limits:
            if name in told:
                if given.get(name) is None:
                    setattr(self, self.attributes()[name], None)
                else:
                    self.check_value(name, self.value(name), where)
            elif self.value(name) is None:
                raise InputError(f"{where}: set '{name}', or a range of it in '{self.ranges_key}'")


class FromFeaturesSettings(HypernetworkSettings):
    """A hypernetwork around TransMorph: its layers are wider, and by default it leaves the encoder alone."""

    hidden: Annotated[list[Count], Field(min_length=1)] = Field(
        [32, 64, 64, 128, 128], description="units of the layers of the hypernetwork"
    )
    final: Literal["tanh", "relu"] = Field(
        "relu", description="activation of the last of these layers; ReLU after the others"
    )
    generated: Annotated[list[str], Field(min_length=1)] | None = Field(
        None, description="parts of the network whose weights are generated; null: those after the encoder"
    )
