"""Tools to compare with, which a test needs and a machine may not have."""

import pytest

from regcore.methods import read_settings
from regcore.methods.settings.base import MethodSettings


def missing(name, settings=None):
    """What a tool lacks to run here, in words; None where nothing is missing."""
    known = settings if isinstance(settings, MethodSettings) else read_settings(name, settings)
    return known.missing()


def skip_without(name, settings=None):
    """Skip the test where a tool is not there, and say why."""
    if why := missing(name, settings):
        pytest.skip(f"{name}: {why}")
