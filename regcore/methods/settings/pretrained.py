"""Settings of a network that was trained elsewhere."""

from pydantic import Field

from regcore.methods.settings.base import MethodSettings
from regcore.settings.base import Number


class PretrainedSettings(MethodSettings):
    """Which model, and a hypernetwork's hyperparameters."""

    model: str | None = Field(
        None,
        description="folder of a trained model, such as results/<study>/models/<method>, or a released one: "
        "synthmorph-2d, synthmorph-3d",
    )
    values: dict[str, Number] = Field(
        {},
        description="of a hypernetwork: the hyperparameters to register with; left out: those stored in the model",
    )
