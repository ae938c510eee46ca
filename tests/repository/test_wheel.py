"""The package as a user installs it: a wheel beside the packages that it declares, and no others."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from support.paths import ROOT

from regcore.commands.cli import main
from regcore.images.volume import Grid, Volume

pytestmark = pytest.mark.slow

SITE = Path(sysconfig.get_path("purelib"))


def run(*command, cwd, **options):
    """Run a program that does not see this repository."""
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=environment, capture_output=True, text=True, **options
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def declared():
    """The distributions that the declared dependencies bring along."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found, waiting = {}, [(Requirement(line), "") for line in project["dependencies"]]
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        try:
            dist = distribution(requirement.name)
        except PackageNotFoundError:  # pip has left it out for a reason of its own
            continue
        for wanted in [extra for extra in ("", *requirement.extras) if (dist.name, extra) not in found]:
            found[dist.name, wanted] = dist
            waiting += [(Requirement(line), wanted) for line in dist.requires or ()]
    return {dist.name: dist for dist in found.values()}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, because a build leaves its files behind."""
    source = tmp_path_factory.mktemp("source")
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT)
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file() and name.startswith(("regcore/", "pyproject.toml", "README.md", "LICENSE")):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    run(
        sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", source / "dist", source, cwd=source
    )
    (built,) = (source / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def clean(tmp_path_factory, wheel):
    """An environment with the wheel and links to the packages that it declares, with what these need."""
    folder = tmp_path_factory.mktemp("clean")
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    (site,) = folder.glob("lib/python*/site-packages")
    for dist in declared().values():
        for top in {file.parts[0] for file in dist.files or ()} - {"..", "__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(Path(dist.locate_file(top)))
    python = folder / "bin" / "python"
    run(
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        wheel,
        cwd=folder,
    )
    return folder / "bin"


def test_the_wheel_holds_the_package_and_its_data(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert not [name for name in names if not name.startswith(("regcore/", "regcore-"))]
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "regcore", cwd=ROOT).split("\0")
    files = {name for name in listed if name and (ROOT / name).is_file()}
    assert not files - names, "every file of the package belongs to the wheel"
    assert {"regcore/py.typed", "regcore/reporting/page.html.j2", "regcore/study/versions.json"} <= names
    assert any(name.startswith("regcore/models/released/") and name.endswith(".safetensors") for name in names)


def test_what_is_not_declared_is_not_there(clean):
    code = "import importlib.util as u; print([n for n in ('tabulate', 'snakemake', 'pytest') if u.find_spec(n)])"
    assert run(clean / "python", "-c", code, cwd=clean).strip() == "[]"
    where = run(clean / "python", "-c", "import regcore; print(regcore.__file__)", cwd=clean)
    assert str(clean.parent) in where


@pytest.mark.parametrize(
    "command", [[], *([name] for name in main.commands)], ids=lambda words: " ".join(words) or "regcore"
)
def test_every_command_has_help(clean, command):
    assert "Usage: regcore" in run(clean / "regcore", *command, "--help", cwd=clean)


def test_the_doctor_reports(clean):
    """On the operator that compiles fastest: compiling the kernels of all takes minutes."""
    code = (
        "from regcore.commands import cli, doctor\n"
        "doctor.PROBES = [probe for probe in doctor.PROBES if probe.operator == 'jacobian_determinant']\n"
        "cli.main(['doctor', '--device', 'cpu', '--size', '16', '16', '16'])"
    )
    found = run(clean / "python", "-c", code, cwd=clean)
    assert "| operator" in found and "| jacobian_determinant" in found


def test_a_pair_is_registered(clean, tmp_path):
    grid = Grid.centred((32, 32), (1, 1), (0, 0))
    for name, centre in (("fixed", 15.5), ("moving", 17)):
        distance = np.linalg.norm(np.moveaxis(np.indices(grid.shape), 0, -1) - centre, axis=-1)
        Volume((1 / (1 + np.exp(distance - 8))).astype("f4"), grid).save(tmp_path / f"{name}.nii.gz")
    run(clean / "regcore", "register", "fixed.nii.gz", "moving.nii.gz", "-o", "out", cwd=tmp_path)
    assert {"warped.nii.gz", "displacement.nii.gz", "register.json"} <= {
        path.name for path in (tmp_path / "out").iterdir()
    }


def test_a_study_is_planned(clean, tmp_path):
    shutil.copy(ROOT / "config" / "config.yaml", tmp_path)
    code = (
        "from regcore.settings.yaml import load_yaml\n"
        "from regcore.study.plan import plan_study\n"
        "plan = plan_study(load_yaml('config.yaml'))\n"
        "print(*plan.methods)"
    )
    assert "voxelmorph" in run(clean / "python", "-c", code, cwd=tmp_path).split()
