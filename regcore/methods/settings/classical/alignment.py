"""Settings of the baselines: there are none."""

from regcore.methods.settings.base import MethodSettings


class NoSettings(MethodSettings):
    """Settings of a method that has none."""
