"""Memory that is free for this process, and sizes in words."""

from pathlib import Path

import psutil


def free_memory() -> int:
    """Free memory of this machine for this process.

    Returns
    -------
    int
        Bytes that the machine has available and that control groups (containers, Slurm) leave to the process.

    Examples
    --------
    >>> from regcore.process.memory import free_memory
    >>> free_memory() > 0
    True
    """
    limits = [free for group in _control_groups() if (free := _within_group(group)) is not None]
    return min([psutil.virtual_memory().available, *limits])


def amount(count: int) -> str:
    """A number of bytes in words.

    Parameters
    ----------
    count : int
        Bytes.

    Returns
    -------
    str

    Examples
    --------
    >>> from regcore.process.memory import amount
    >>> amount(3 * 2**29)
    '1.5 GiB'
    """
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def _control_groups(own: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> list[Path]:
    """The control groups, of both versions, that limit this process: its own and its parents."""
    try:
        lines = [line.split(":", 2) for line in own.read_text().splitlines()]
    except OSError:
        return []
    found = []
    for _, controllers, name in lines:
        if controllers in ("", "memory"):
            top = root / controllers
            group = top / name.lstrip("/")
            found += [place for place in (group, *group.parents) if place.is_relative_to(top)]
    return found


def _within_group(group: Path) -> int | None:
    """Free memory under a control group's limit. Cached files can be dropped and do not count as used."""
    for limit, used, cached in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        try:
            most, now = int((group / limit).read_text()), int((group / used).read_text())
            facts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            return most - now + int(facts.get(cached, 0))
        except (OSError, ValueError):  # other version, or "max": no limit
            continue
    return None
