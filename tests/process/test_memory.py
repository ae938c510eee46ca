"""Free memory is what the machine and its control groups leave."""

import psutil

from regcore.process import memory


def test_control_groups_of_both_versions_limit_the_memory(tmp_path):
    own, root = tmp_path / "cgroup", tmp_path / "root"
    own.write_text("0::/jobs/one\n3:memory:/batch\n5:cpu:/x\n")
    job, batch = root / "jobs" / "one", root / "memory" / "batch"
    for group, names in (
        (job.parent, {"memory.max": 1000, "memory.current": 700, "memory.stat": "anon 5\ninactive_file 100"}),
        (job, {"memory.max": "max", "memory.current": 10, "memory.stat": "anon 5"}),
        (batch, {"memory.limit_in_bytes": 900, "memory.usage_in_bytes": 100, "memory.stat": "total_inactive_file 50"}),
    ):
        group.mkdir(parents=True, exist_ok=True)
        for name, value in names.items():
            (group / name).write_text(str(value))
    groups = memory._control_groups(own, root)
    assert groups == [job, job.parent, root, batch, batch.parent]
    assert [memory._within_group(group) for group in groups] == [None, 400, None, 850, None]


def test_the_tightest_limit_counts(monkeypatch):
    monkeypatch.setattr(memory, "_control_groups", lambda: ["loose", "none", "tight"])
    monkeypatch.setattr(memory, "_within_group", {"loose": 10**18, "none": None, "tight": 1234}.get)
    assert memory.free_memory() == 1234
    monkeypatch.setattr(memory, "_control_groups", list)
    assert 0 < memory.free_memory() <= psutil.virtual_memory().total
