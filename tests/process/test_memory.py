"""Free memory is what the machine and its control groups leave."""

from regcore.process import memory


def test_free_memory_is_what_machine_and_control_groups_leave(tmp_path):
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
    groups = memory._groups(own, root)
    assert groups == [job, job.parent, root, batch, batch.parent]
    assert [memory._within_group(group) for group in groups] == [None, 400, None, 850, None]
    (tmp_path / "meminfo").write_text("MemTotal: 100 kB\nMemAvailable:    60 kB\n")
    assert memory._available(tmp_path / "meminfo") == 60 * 1024
    assert memory._available(tmp_path / "none") is None
    assert memory.free_memory() > 0
