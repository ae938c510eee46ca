"""Lines of progress: when, how fast, and how long it will take."""

import pytest

from regcore.process import progress as module
from regcore.process.progress import PROGRESS_EVERY, Every, Progress, duration, time_left, tracked


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets."""

    class Clock:
        now = 100.0

    monkeypatch.setattr(module.time, "monotonic", lambda: Clock.now)
    return Clock


def test_it_is_time_once_in_a_while(clock):
    every, always = Every(10), Every(0)
    assert not every.due() and always.due() and always.due()
    clock.now += 10
    assert every.due() and not every.due()
    clock.now += 9
    every.restart()
    clock.now += 9
    assert not every.due()


def test_rate_and_time_left_count_from_where_the_loop_went_on(clock):
    progress = Progress(total=1000, done=400)
    assert progress.left(400) == "time left unknown" and not progress.due()
    clock.now += PROGRESS_EVERY
    assert progress.due() and not progress.due()
    assert progress.rate(430) == 2 and progress.left(430) == "4 min 45 s left"
    assert progress.left(1001) == "0 min 00 s left"


def test_items_are_told_with_the_time_that_each_took(clock, caplog):
    caplog.set_level("INFO", logger="regcore")
    for _ in tracked([("a", "b"), ("c", "d")], "swept", "--".join):
        clock.now += 90
    lines = [record.getMessage() for record in caplog.records]
    assert lines == ["swept 1/2  a--b  90.0 s  1 min 30 s left", "swept 2/2  c--d  90.0 s  0 min 00 s left"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 min 00 s"), (59.6, "1 min 00 s"), (3599, "59 min 59 s"), (7260, "2 h 01 min")]
)
def test_durations_are_for_people(seconds, text):
    assert duration(seconds) == text and time_left(seconds) == f"{text} left"
