"""Quick searches for the best hyperparameters of a hypernetwork, where these are not what is tested."""

import contextlib
import functools
from collections.abc import Iterator

import pytest

from regcore.commands import tune
from regcore.study.stages import sweep, train
from regcore.tuning import amortised


@contextlib.contextmanager
def coarsely_tuned() -> Iterator[None]:
    """Few values are swept, and from the best of them alone it goes uphill."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(amortised, "POINTS", {1: 5, 2: 3, 3: 2})
        patch.setattr(amortised, "COARSE", {1: 5, 2: 3, 3: 2})
        for module in (sweep, train, tune):
            patch.setattr(module, "tune", functools.partial(amortised.tune, starts=1))
        yield
