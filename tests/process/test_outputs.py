"""Results of two runs are never mixed, nothing that is not ours is deleted, and what cannot be written is refused."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from regcore.errors import InputError
from regcore.process import outputs
from regcore.process.outputs import require_writable, result_folder

NAMES = ("field.txt", "inverse.txt")
RECORD = "run.json"


def write(output, content, *names, **options):
    """A run that writes some of its files, and its record."""
    with result_folder(output, NAMES, RECORD, **options) as folder:
        for name in (*names, RECORD):
            (folder / name).write_text(content)


def found(folder):
    """Name → content of everything in a folder."""
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(params=["beside, exchanged", "beside, one by one", "inside"])
def way(request, monkeypatch):
    """The ways in which results are replaced: by the system's exchange, without it, and in a folder that stays."""
    if request.param == "beside, one by one":

        def refuses(first, second):
            raise OSError(errno.EINVAL, "the file system cannot")

        monkeypatch.setattr(outputs, "_exchange", refuses)
    elif request.param == "inside":
        monkeypatch.setattr(os.path, "ismount", lambda path: Path(path).name == "out")
    return request.param


def test_a_second_run_leaves_nothing_of_the_first(way, tmp_path):
    write(tmp_path / "out", "first", "field.txt", "inverse.txt")
    write(tmp_path / "out", "second", "field.txt")
    assert found(tmp_path) == {"out/field.txt": "second", "out/run.json": "second"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("before", ["nothing", "an empty folder", "parents missing"])
def test_a_new_folder_appears_with_the_results(tmp_path, before):
    out = tmp_path / "a" / "b" / "out" if before == "parents missing" else tmp_path / "out"
    if before == "an empty folder":
        out.mkdir(mode=0o750)
    with result_folder(out, NAMES, RECORD) as folder:
        (folder / RECORD).write_text("done")
        assert not out.exists() or not any(out.iterdir())
    assert found(out) == {RECORD: "done"}
    assert before != "an empty folder" or out.stat().st_mode & 0o777 == 0o750
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_a_failure_leaves_the_earlier_results(way, tmp_path):
    write(tmp_path / "out", "first", "field.txt")
    with pytest.raises(ZeroDivisionError), result_folder(tmp_path / "out", NAMES, RECORD) as folder:
        (folder / "inverse.txt").write_text("half")
        raise ZeroDivisionError
    assert found(tmp_path) == {"out/field.txt": "first", "out/run.json": "first"}
    with pytest.raises(ZeroDivisionError), result_folder(tmp_path / "a" / "b", NAMES, RECORD):
        raise ZeroDivisionError
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("failing", range(5))
def test_a_step_of_the_replacement_that_fails_is_undone(way, tmp_path, monkeypatch, failing):
    """Five steps where results are replaced one by one: two away, two and the record in."""
    if way == "beside, exchanged":
        pytest.skip("one step, which fails or not")
    write(tmp_path / "out", "first", "field.txt")
    steps, real = [], os.rename

    def rename(source, target):
        if Path(source).is_file():
            steps.append(source)
            if len(steps) == failing + 1:
                raise OSError(errno.EIO, "Input/output error")
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(OSError, match="Input/output"):
        write(tmp_path / "out", "second", "field.txt", "inverse.txt")
    assert found(tmp_path) == {"out/field.txt": "first", "out/run.json": "first"}


KILLED = """
import os, signal, sys
from regcore.process import outputs
count, real = 0, os.rename
def rename(source, target):
    global count
    if count == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    count += os.path.isfile(source)
    real(source, target)
os.rename = rename
if sys.argv[3] == "inside":
    os.path.ismount = lambda path: True
with outputs.result_folder(sys.argv[1], ["field.txt", "inverse.txt"], "run.json") as folder:
    for name in ("field.txt", "run.json"):
        (folder / name).write_text("second")
    if int(sys.argv[2]) == -1:
        os.kill(os.getpid(), signal.SIGKILL)
"""


def killed(output, step, where):
    done = subprocess.run([sys.executable, "-c", KILLED, str(output), str(step), where])
    assert done.returncode == -signal.SIGKILL


@pytest.mark.parametrize("where", ["beside", "inside"])
def test_a_run_that_is_killed_leaves_the_earlier_results(tmp_path, where):
    write(tmp_path / "out", "first", "field.txt", "inverse.txt")
    killed(tmp_path / "out", -1, where)
    whole = {"field.txt": "first", "inverse.txt": "first", RECORD: "first"}
    assert {name: text for name, text in found(tmp_path / "out").items() if not name.startswith(".")} == whole
    write(tmp_path / "out", "third", "field.txt")
    assert found(tmp_path / "out") == {"field.txt": "third", RECORD: "third"}


@pytest.mark.slow
@pytest.mark.parametrize(("earlier", "step"), [*((True, step) for step in range(5)), (False, 0), (False, 1)])
def test_the_next_run_undoes_what_a_killed_one_was_replacing(tmp_path, monkeypatch, earlier, step):
    """One by one: three old files away, two new ones in."""
    out, whole = tmp_path / "out", {}
    out.mkdir()
    if earlier:
        write(out, "first", "field.txt", "inverse.txt")
        whole = {"field.txt": "first", "inverse.txt": "first", RECORD: "first"}
    killed(out, step, "inside")
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path).name == "out")
    with pytest.raises(ZeroDivisionError), result_folder(out, NAMES, RECORD):
        raise ZeroDivisionError
    assert found(out) == whole


def test_files_of_others_stay(way, tmp_path):
    """Those from before the run, such as the log that the shell opens, and those that come during it."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "log").write_text("of the shell")
    write(out, "first", "field.txt", "inverse.txt")
    with result_folder(out, NAMES, RECORD) as folder:
        (folder / RECORD).write_text("second")
        (out / "notes.txt").write_text("mine")
    assert found(tmp_path) == {"out/run.json": "second", "out/log": "of the shell", "out/notes.txt": "mine"}


def test_a_file_of_our_name_that_is_not_ours_is_refused_and_stays(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "field.txt").write_text("mine")
    with pytest.raises(InputError, match=r"out: holds field\.txt but no run\.json.*choose another"):
        write(tmp_path / "out", "never")
    assert found(tmp_path) == {"out/field.txt": "mine"}


def test_an_output_that_cannot_be_written_is_refused_before_the_work(tmp_path):
    (tmp_path / "file").write_text("x")
    for output, words in (
        (tmp_path / "file", "is a file"),
        (tmp_path / "file" / "out", "Not a directory"),
        ("/proc/x", "cannot be written to"),
        (tmp_path / ("x" * 300), "name too long"),
    ):
        with pytest.raises(InputError, match=f"{Path(output).name}.*{words}.*-o"):
            write(output, "never")
    assert found(tmp_path) == {"file": "x"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_refused(tmp_path):
    (tmp_path / "out").mkdir(mode=0o500)
    with pytest.raises(InputError, match=r"out: cannot be written to \(Permission denied\)"):
        write(tmp_path / "out", "never")


def test_too_little_room_is_refused_before_the_work(tmp_path):
    with pytest.raises(InputError, match=r"out: too little room: .* may need 1000000000000\.0 MB"):
        write(tmp_path / "out", "never", room=10**18)
    assert not any(tmp_path.iterdir())


def test_a_disk_that_fills_during_the_work_names_the_file(tmp_path):
    with pytest.raises(OSError) as caught, result_folder(tmp_path / "out", NAMES, RECORD) as folder:
        raise OSError(errno.ENOSPC, "No space left on device", str(folder / "field.txt"))
    assert caught.value.filename == str(tmp_path / "out" / "field.txt") and caught.value.errno == errno.ENOSPC


def test_an_input_among_the_results_is_refused(tmp_path):
    (tmp_path / "scan.txt").write_text("of the user")
    write(tmp_path, "beside its input", inputs=[tmp_path / "scan.txt"])
    write(tmp_path / "out", "first", "field.txt")
    (tmp_path / "link.txt").symlink_to(tmp_path / "out" / "field.txt")
    for name in ("out/field.txt", "link.txt"):
        with pytest.raises(InputError, match=f"{name} is one of them"):
            write(tmp_path / "out", "second", inputs=[tmp_path / "elsewhere", tmp_path / name])


def test_two_runs_do_not_write_to_one_folder_at_a_time(tmp_path):
    with result_folder(tmp_path / "out", NAMES, RECORD) as folder:
        with pytest.raises(InputError, match="out: another process is writing"):
            write(tmp_path / "out", "second")
        (folder / RECORD).write_text("first")
    assert found(tmp_path) == {"out/run.json": "first"}


def test_the_folder_that_one_stands_in_stays_the_same(tmp_path, monkeypatch):
    write(tmp_path / "out", "first", "field.txt")
    monkeypatch.chdir(tmp_path / "out")
    write(".", "second", "inverse.txt")
    assert found(Path()) == {"inverse.txt": "second", RECORD: "second"}


def test_a_link_to_a_folder_stays_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write(tmp_path / "link", "first")
    assert (tmp_path / "link").is_symlink() and found(tmp_path / "real") == {RECORD: "first"}


def test_a_file_that_nobody_declared_is_a_fault_of_the_program(tmp_path):
    with pytest.raises(ValueError, match=r"other\.txt: not among"):
        write(tmp_path / "out", "x", "other.txt")
    assert not any(tmp_path.iterdir())


def test_a_file_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    require_writable(tmp_path / "file")
    require_writable(tmp_path / "missing" / "folder" / "file")
    for output, options, words in (
        (tmp_path, {}, "is a folder"),
        (tmp_path / "file" / "x", {}, "Not a directory"),
        ("/proc/x", {}, "cannot be written to"),
        (tmp_path / "new", {"room": 10**18}, "too little room"),
        (tmp_path / "file", {"inputs": [tmp_path / "file"]}, "is also an input"),
    ):
        with pytest.raises(InputError, match=f"{Path(output).name}: .*{words}.*-o"):
            require_writable(output, **options)
    assert found(tmp_path) == {"file": "x"}
