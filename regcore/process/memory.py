"""Memory that this process may still take."""

from pathlib import Path


def free_memory() -> int | None:
    """Free bytes for this process on this machine, within the limits of its control groups; None if unknown.

    Examples
    --------
    >>> from regcore.process.memory import free_memory
    >>> free = free_memory()
    >>> free is None or free > 0
    True
    """
    found = [_available(Path("/proc/meminfo")), *map(_within_group, _groups())]
    return min((free for free in found if free is not None), default=None)


def _available(meminfo: Path) -> int | None:
    try:
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None


def _groups(own: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> list[Path]:
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
