"""The parts that a study's work is split into, each a job of the workflow."""

from collections.abc import Sequence

#: Work is split into parts of this size: large enough to hide the start of Python, small enough that a killed job
#: loses little and a cluster can share the work.
SCANS_PER_PART, PAIRS_PER_PART = 32, 16


def part_names(count: int, size: int) -> list[str]:
    """Names of the parts that ``count`` things are split into.

    Parameters
    ----------
    count : int
        Number of things.
    size : int
        Things in each part; the last may have fewer.

    Returns
    -------
    list of str

    Examples
    --------
    >>> from regcore.study.parts import part_names
    >>> part_names(40, size=16)
    ['part-00', 'part-01', 'part-02']
    """
    return [f"part-{number:02d}" for number in range(-(-count // size))]


def part_of(things: Sequence[str], thing: str, size: int) -> str:
    """The part that a thing is in.

    Parameters
    ----------
    things : sequence of str
        All things, in order.
    thing : str
        One of them.
    size : int
        Things in each part.

    Returns
    -------
    str

    Raises
    ------
    ValueError
        It is not one of the things.

    Examples
    --------
    >>> from regcore.study.parts import part_of
    >>> part_of(["a", "b", "c"], "c", size=2)
    'part-01'
    """
    return f"part-{things.index(thing) // size:02d}"


def things_in(things: Sequence[str], part: str, size: int) -> list[str]:
    """The things in a part.

    Parameters
    ----------
    things : sequence of str
        All things, in order.
    part : str
        Name of the part.
    size : int
        Things in each part.

    Returns
    -------
    list of str

    Examples
    --------
    >>> from regcore.study.parts import things_in
    >>> things_in(["a", "b", "c"], "part-00", size=2)
    ['a', 'b']
    """
    number = int(part.removeprefix("part-"))
    return list(things[number * size : (number + 1) * size])
