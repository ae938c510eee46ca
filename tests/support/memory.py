"""The memory that a step takes, measured once: for each method, and for each kind of search.

Measuring costs three steps on images larger than those of a small study, more than most trainings of tests.  A training
only compares the estimate with what is free.  The measurement has tests of its own, which call it directly.
"""

import contextlib
from collections.abc import Callable, Iterator

import pytest

from regcore.autoreg.bilevel import Stage
from regcore.study.stages import architecture
from regcore.training import trainer


def _once(measure: Callable, key: Callable) -> Callable:
    known: dict = {}

    def measured(*arguments):
        alike = key(*arguments)
        if alike not in known:
            known[alike] = measure(*arguments)
        return known[alike]

    return measured


def _step(method, module, shape, size, classes=0) -> tuple:
    return type(method), len(shape)


def _stage(stage) -> tuple:
    return stage.name, type(stage.problem.module), sum(weight.numel() for weight in stage.problem.searched.parameters())


def _start(data) -> tuple:
    settings = data.method.settings
    return settings.network, settings.channels, data.grid.ndim


@contextlib.contextmanager
def measured_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for module in (trainer, architecture):
            patch.setattr(module, "step_bytes", _once(module.step_bytes, _step))
        patch.setattr(Stage, "_measured", _once(Stage._measured, _stage))
        patch.setattr(architecture, "_training_bytes", _once(architecture._training_bytes, _start))
        yield
