"""Settings of an existing trained model."""

from pydantic import Field

from regcore.methods.settings.base import MethodSettings
from regcore.settings.base import Number


class PretrainedSettings(MethodSettings):
    """The model, and the hyperparameters of a hypernetwork."""

    model: str | None = Field(
        None,
        description="folder of a trained model, such as results/<study>/models/<method>, or a released one: "
        "synthmorph-2d, synthmorph-3d",
    )
    values: dict[str, Number] = Field(
        {},
        description="for a hypernetwork: the hyperparameters to register with; default: those stored in the model",
    )
