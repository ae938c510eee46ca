"""Tools that are not ours: their fields against their own resamplers, the truth, their threads and their failures.

Every pair is on an oblique, anisotropic, left-handed grid: a converter that mistakes an axis, a sign or a unit moves
the image somewhere else than the tool does.
"""

import contextlib
import itertools
import re
import stat
import sys
import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import psutil
import pytest
import torch
from scipy.ndimage import gaussian_filter, map_coordinates
from support.marks import marks_its_tests
from support.tools import skip_without

from regcore.errors import InputError
from regcore.images.field import DisplacementField, read_field
from regcore.images.volume import Grid, Volume
from regcore.methods import METHODS, make_method, read_settings
from regcore.methods.base import Registration
from regcore.methods.classical.deeds import read_displacements, upsampled
from regcore.methods.classical.external import FIXED, MOVING, External, ToolError, run_program
from regcore.methods.classical.fields import from_ras, from_voxels, on_grid
from regcore.methods.classical.greedy import WARP, call_greedy
from regcore.methods.settings.classical.alignment import NoSettings

#: What is run: a label that begins with the method's name, and settings that are quick on small images.
QUICK = {
    "syn": {"iterations": [40, 20, 5]},
    "greedy": {},
    "greedy-velocity": {"velocity": True, "metric": "SSD"},
    "niftyreg": {"spacing_mm": 8, "iterations": 80},
    "niftyreg-velocity": {"velocity": True, "similarity": "lncc", "iterations": 80},
    "dipy": {},
    "demons": {},
    "demons-diffeomorphic": {"kind": "diffeomorphic"},
    "convexadam": {"disp_hw": 3},
    "fireants": {"iterations": [60, 40, 20]},
    "fireants-syn": {"kind": "syn", "iterations": [40, 20, 10]},
    "elastix": {"levels": 2, "iterations": 100, "samples": 1000},
    "elastix-plain": {"similarity": "ncc", "bending_energy": 0, "levels": 2, "iterations": 100, "samples": 1000},
}
#: These take too long in 3-D, and differ from the others by what does not depend on the dimension.
ONLY_2D = ("niftyreg-velocity", "elastix-plain")


def name_of(label: str) -> str:
    """The method that a label stands for."""
    return label.partition("-")[0]


CASES = [
    (label, ndim)
    for label, ndim in itertools.product(QUICK, (2, 3))
    if ndim in METHODS[name_of(label)].dimensions and not (ndim == 3 and label in ONLY_2D)
]
each_case = pytest.mark.parametrize(("label", "ndim"), CASES)
each_label = pytest.mark.parametrize(
    ("label", "ndim"), [(label, min(METHODS[name_of(label)].dimensions)) for label in QUICK]
)

#: Largest mean absolute difference from the tool's own resampler, of images from 0 to 1: all is float32.
TOLERANCE = 1e-6
#: FireANTs goes through coordinates from -1 to 1, as far from zero as it can be at the border.
TOLERANCES = {"fireants": 5e-6}


def oblique_grid(ndim: int) -> Grid:
    """Axes permuted and flipped, turned by 20°, of different spacing."""
    cos, sin = np.cos(np.deg2rad(20)), np.sin(np.deg2rad(20))
    if ndim == 2:
        shape, spacing = (64, 48), (1, 1.5)
        direction = np.array([[cos, -sin], [sin, cos]]) @ [[0, 1], [1, 0]]
    else:
        shape, spacing = (32, 28, 26), (1, 1.5, 2.5)
        about_z = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
        about_x = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
        direction = about_z @ about_x @ [[0, 0, -1], [1, 0, 0], [0, 1, 0]]
    assert np.linalg.det(direction) < 0
    affine = np.eye(ndim + 1)
    affine[:-1, :-1] = direction * spacing
    affine[:-1, -1] = [11, -23, 37][:ndim]
    return Grid(shape, affine)


def related_pair(ndim: int) -> tuple[Volume, Volume, DisplacementField]:
    """Two images of random blobs and the map that relates them, which leaves the border where it is."""
    random = np.random.default_rng(0)
    grid = oblique_grid(ndim)
    values = gaussian_filter(random.standard_normal(grid.shape), 2)
    moving = Volume(((values - values.min()) / np.ptp(values)).astype(np.float32), grid)
    places = np.meshgrid(*[np.linspace(-1, 1, n) for n in grid.shape], indexing="ij")
    fading = np.prod([np.cos(np.pi / 2 * place) for place in places], axis=0)
    displacement = np.stack([fading * gaussian_filter(random.standard_normal(grid.shape), 6) for _ in grid.shape])
    displacement /= np.sqrt((displacement**2).mean())
    truth = DisplacementField(torch.from_numpy(displacement[None]).float(), grid)
    return truth.warp(moving), moving, truth


def inside(values: np.ndarray, grid: Grid, margin: int = 4) -> np.ndarray:
    """Values without those near the border."""
    return values[tuple(slice(margin, n - margin) for n in grid.shape)]


@dataclass
class Run:
    """One registration by a tool that may use one thread, and the CPU seconds of all and of its further threads."""

    method: External
    fixed: Volume
    moving: Volume
    truth: DisplacementField
    found: Registration
    folder: Path
    cpu: float
    cpu_elsewhere: float


class CpuWatch(threading.Thread):
    """Looks at the CPU seconds of each thread of the processes that this one starts, while it runs."""

    def __init__(self):
        super().__init__()
        self._end = threading.Event()
        self._seconds = defaultdict(dict)
        self.own = 0.0

    def run(self) -> None:
        while not self._end.wait(0.05):
            for child in psutil.Process().children():
                with contextlib.suppress(psutil.Error):
                    for thread in child.threads():
                        self._seconds[child.pid][thread.id] = thread.user_time + thread.system_time
        self.own = time.thread_time()

    def stop(self) -> None:
        self._end.set()
        self.join()

    @property
    def all(self) -> float:
        return sum(sum(threads.values()) for threads in self._seconds.values())

    @property
    def elsewhere(self) -> float:
        """Seconds of all threads but the busiest one of each process."""
        return self.all - sum(max(threads.values(), default=0) for threads in self._seconds.values())


def run_tool(label: str, ndim: int, folder: Path) -> Run:
    """Run a tool on the pair with one thread; skip where the tool is not there."""
    name = name_of(label)
    method = make_method(name, QUICK[label])
    skip_without(name, method.settings)
    fixed, moving, truth = related_pair(ndim)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    watch = CpuWatch()
    watch.start()
    try:
        process, thread = time.process_time(), time.thread_time()
        found = method.run(fixed, moving, folder)
        thread = time.thread_time() - thread
    finally:
        watch.stop()
        torch.set_num_threads(before)
    process = time.process_time() - process - watch.own
    return Run(method, fixed, moving, truth, found, folder, process + watch.all, process - thread + watch.elsewhere)


@pytest.fixture(scope="module")
@marks_its_tests("slow")
def runs(tmp_path_factory):
    """``runs(label, ndim)``: the tool's run on the pair, done once."""
    done = {}

    def run(label: str, ndim: int) -> Run:
        if (label, ndim) not in done:
            done[label, ndim] = run_tool(label, ndim, tmp_path_factory.mktemp(label))
        return done[label, ndim]

    return run


def voxels_of(path: Path) -> np.ndarray:
    return nib.load(path).get_fdata().squeeze()


def by_ants(run: Run) -> np.ndarray:
    from regcore.images import ants as ants_bridge

    images = ants_bridge.to_ants(run.fixed), ants_bridge.to_ants(run.moving)
    return ants_bridge.load().apply_transforms(*images, [str(run.folder / "pair_1Warp.nii.gz")]).numpy()


def by_greedy(run: Run) -> np.ndarray:
    ndim = run.fixed.grid.ndim
    call_greedy(ndim, f"-d {ndim} -threads 1 -rf {FIXED} -rm {MOVING} own.nii.gz -r {WARP}", run.folder)
    return voxels_of(run.folder / "own.nii.gz")


def by_niftyreg(run: Run) -> np.ndarray:
    options = ["-trans", "cpp.nii.gz", "-res", "own.nii.gz", "-inter", "1", "-pad", "0", "-voff"]
    run.method.call("reg_resample", "-ref", FIXED, "-flo", MOVING, *options, folder=run.folder)
    return voxels_of(run.folder / "own.nii.gz")


def by_dipy(run: Run) -> np.ndarray:
    return np.asarray(run.method.mapping(run.fixed, run.moving).transform(run.moving.data))


def by_simpleitk(run: Run) -> np.ndarray:
    import SimpleITK as sitk

    fixed, moving = (sitk.ReadImage(str(run.folder / name), sitk.sitkFloat32) for name in (FIXED, MOVING))
    transform = sitk.DisplacementFieldTransform(run.method.displacement(fixed, moving))
    return sitk.GetArrayFromImage(sitk.Resample(moving, fixed, transform, sitk.sitkLinear)).T


def by_map_coordinates(run: Run) -> np.ndarray:
    where = np.indices(run.fixed.grid.shape) + np.moveaxis(run.method.displacement(run.fixed, run.moving), -1, 0)
    return map_coordinates(run.moving.data, where, order=1)


def by_transformix(run: Run) -> np.ndarray:
    run.method.call("transformix", "-in", MOVING, "-tp", "TransformParameters.0.txt", "-out", ".", folder=run.folder)
    return voxels_of(run.folder / "result.nii.gz")


def by_fireants(run: Run) -> np.ndarray:
    search, *images = run.method.search(run.folder)
    return search.evaluate(*images)[0, 0].detach().cpu().numpy().T


OWN_RESAMPLER = {
    "syn": by_ants,
    "greedy": by_greedy,
    "niftyreg": by_niftyreg,
    "dipy": by_dipy,
    "demons": by_simpleitk,
    "convexadam": by_map_coordinates,
    "fireants": by_fireants,
    "elastix": by_transformix,
}


@each_case
def test_the_field_moves_the_image_as_the_tool_itself_does(runs, label, ndim):
    run = runs(label, ndim)
    ours = run.found.field.warp(run.moving).data
    difference = inside(np.abs(OWN_RESAMPLER[name_of(label)](run) - ours), run.fixed.grid)
    tolerance = TOLERANCES.get(name_of(label), TOLERANCE)
    assert difference.mean() < tolerance
    # The same bound could not be met by a field that is wrong by a little.
    moved = run.found.field.displacement.roll(1, dims=2)
    wrong = DisplacementField(moved, run.fixed.grid).warp(run.moving).data
    assert inside(np.abs(wrong - ours), run.fixed.grid).mean() > 100 * tolerance


@each_case
def test_the_tool_registers(runs, label, ndim):
    run = runs(label, ndim)
    grid = run.fixed.grid
    assert run.found.field.grid is grid

    def error(field: DisplacementField) -> float:
        return inside(np.linalg.norm(field.targets() - run.truth.targets(), axis=-1), grid).mean()

    assert error(run.found.field) < 0.55 * error(DisplacementField.identity(grid))


@each_case
def test_the_inverse_undoes_the_field(runs, label, ndim):
    run = runs(label, ndim)
    symmetric = label.endswith("velocity") or name_of(label) in ("syn", "greedy", "dipy")
    assert (run.found.inverse is not None) == symmetric
    if symmetric:
        grid = run.fixed.grid
        points = inside(grid.to_world(np.moveaxis(np.indices(grid.shape), 0, -1)), grid, 6).reshape(-1, ndim)
        back = run.found.field.at(run.found.inverse.at(points))
        assert np.linalg.norm(back - points, axis=1).mean() < 0.06


@each_case
def test_the_tool_uses_the_threads_that_it_is_given(runs, label, ndim):
    run = runs(label, ndim)
    # Not CPU against wall seconds: on a busy machine two threads share a core, and nothing would be seen.
    assert run.cpu_elsewhere <= 0.05 * run.cpu + 0.05
    assert any(re.search(r"(omp|threads?)\D{1,20}\b1\b", command, re.IGNORECASE) for command in run.found.commands)


@each_label
def test_a_second_run_gives_the_same_bits(runs, tmp_path, label, ndim):
    first, second = runs(label, ndim).found, run_tool(label, ndim, tmp_path).found
    assert torch.equal(first.field.displacement, second.field.displacement)
    assert first.commands == second.commands


@each_label
def test_commands_hold_no_folder_and_the_tool_its_version(runs, label, ndim):
    run = runs(label, ndim)
    assert not any(str(run.folder) in command for command in run.found.commands)
    assert re.fullmatch(r"\S+ \d+(\.\d+)+", run.found.tool)


STUB = """#!{python}
import gzip, struct, sys
import numpy as np

arguments = dict(zip(sys.argv[1::2], sys.argv[2::2]))
headers = []
for flag in ("-F", "-M"):
    assert arguments[flag].endswith(".nii.gz")
    stored = gzip.open(arguments[flag]).read()
    dimensions = struct.unpack("<8h", stored[40:56])
    kind, = struct.unpack("<h", stored[70:72])
    offset, slope = struct.unpack("<2f", stored[108:116])
    assert (kind, offset, len(stored)) == (16, 352, 352 + 4 * np.prod(dimensions[1:4]))
    values = np.frombuffer(stored[352:], "<f4")
    assert 500 < values.max() <= 1000 and values.min() >= 0 and slope in (0, 1) or np.isnan(slope)
    headers.append(dimensions)
assert headers[0] == headers[1]
assert (arguments["-G"], arguments["-L"], arguments["-Q"]) == ("6x3", "4x3", "2x1")
{ending}
"""


@pytest.fixture
def deeds_stub(tmp_path):
    """``deeds_stub(ending)``: deeds with a program that checks what it gets and then does as told."""

    def make(ending: str) -> External:
        program = tmp_path / "deedsBCV"
        program.write_text(STUB.format(python=sys.executable, ending=ending))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        lists = {"grid": [6, 3], "search": [4, 3], "quantisation": [2, 1]}
        return make_method("deeds", {"executable": str(program), **lists})

    return make


def test_deeds_blocks_are_reordered_and_upsampled(deeds_stub, tmp_path):
    fixed, moving, _ = related_pair(3)
    points = tuple(n // 3 for n in fixed.grid.shape)
    assert points != tuple(n / 3 for n in fixed.grid.shape)
    slopes = np.array([[0.1, 0.2, -0.3], [-0.2, 0.05, 0.1], [0.3, -0.1, 0.15]])  # of component i, j, k along each axis
    offsets = np.array([0.5, -1, 2])

    def displacements(where: np.ndarray) -> np.ndarray:
        return np.tensordot(slopes, where, 1) + offsets[:, None, None, None]

    along_i, along_j, along_k = displacements(np.indices(points)).astype("<f4")
    stored = [block.ravel(order="F") for block in (along_j, along_i, along_k)]
    np.concatenate(stored).tofile(tmp_path / "known.dat")
    copy = f"import shutil; shutil.copy({str(tmp_path / 'known.dat')!r}, arguments['-O'] + '_displacements.dat')"
    found = deeds_stub(copy).register(fixed, moving)
    where = np.meshgrid(
        *[np.minimum(np.arange(n) * m / n, m - 1) for n, m in zip(fixed.grid.shape, points, strict=True)],
        indexing="ij",
    )
    np.testing.assert_allclose(found.field.displacement[0].numpy(), displacements(np.stack(where)), atol=1e-5)
    assert found.inverse is None
    assert found.commands == [
        f"OMP_NUM_THREADS={torch.get_num_threads()} deedsBCV -F fixed.nii.gz -M moving.nii.gz -O pair -a 1.6 "
        "-G 6x3 -L 4x3 -Q 2x1"
    ]


@pytest.mark.parametrize(
    ("ending", "message"),
    [
        ("sys.exit('out of memory, and so on')", "status 1:\nout of memory, and so on"),
        ("import os; os.abort()", "status -6"),
        ("", "without writing its displacements"),
        ("np.zeros(30, 'f4').tofile('pair_displacements.dat')", r"wrote 30 numbers, not 3 for each of \(10, 9, 8\)"),
        ("np.full(2160, np.nan, 'f4').tofile('pair_displacements.dat')", "NaN or infinite"),
    ],
)
def test_a_program_that_fails_is_a_tool_error(deeds_stub, ending, message):
    fixed, moving, _ = related_pair(3)
    with pytest.raises(ToolError, match=message):
        deeds_stub(ending).register(fixed, moving)


def test_deeds_upsampling_keeps_what_the_control_points_say(generator, tmp_path):
    stored = generator.standard_normal((3, 2 * 3 * 4)).astype("<f4")
    stored.tofile(tmp_path / "displacements.dat")
    coarse = read_displacements(tmp_path / "displacements.dat", (8, 13, 17), 4)
    assert coarse.shape == (2, 3, 4, 3)
    assert coarse[1, 0, 0].tolist() == [stored[1, 1], stored[0, 1], stored[2, 1]]
    np.testing.assert_array_equal(upsampled(coarse, (8, 12, 16))[::4, ::4, ::4], coarse)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("niftyreg", {"bin_dir": "nowhere"}, "nowhere lacks the programs reg_f3d"),
        ("deeds", {}, "'executable' is not set. deedsBCV comes as source"),
        ("deeds", {"executable": "nowhere"}, "nowhere is not an executable file. deedsBCV comes as source"),
        ("elastix", {"executable": "nowhere"}, "nowhere is not installed, or transformix is not beside it"),
    ],
)
def test_a_missing_program_is_named_with_how_to_get_it(name, settings, message):
    assert message in read_settings(name, settings).missing()
    with pytest.raises(ToolError, match=re.escape(message)):
        make_method(name, settings).register(*related_pair(3)[:2])


@pytest.mark.slow
@pytest.mark.parametrize("slices", [2, 8])
@pytest.mark.parametrize("name", ["syn", "greedy", "dipy", "convexadam", "niftyreg", "demons", "instance"])
def test_a_volume_of_few_slices_gives_a_field_on_its_grid(name, slices, generator):
    if name != "instance":
        skip_without(name)
    shape = (32, 28, slices)
    grid = Grid.centred(shape, (1, 1, 5), (0, 0, 0))
    texture = gaussian_filter(generator.standard_normal(shape), (3, 3, 1))
    moving = Volume(((texture - texture.min()) / np.ptp(texture)).astype(np.float32), grid)
    x, y, _ = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    displacement = np.zeros((1, 3, *shape))
    displacement[0, 0] = 3 * np.cos(np.pi / 2 * x) * np.cos(np.pi / 2 * y)
    fixed = DisplacementField(torch.from_numpy(displacement).float(), grid).warp(moving)
    found = make_method(name, {}).register(fixed, moving)
    assert found.field.grid.shape == shape == tuple(found.field.displacement.shape[2:])
    assert found.inverse is None or found.inverse.displacement.shape[2:] == shape
    assert bool(found.field.displacement.isfinite().all())


class Short(External):
    """A tool that needs six voxels along each axis, and moves by where a voxel is."""

    settings_type = NoSettings
    shortest = 6
    uses_masks = True

    def run(self, fixed: Volume, moving: Volume, folder: Path, fixed_mask=None, moving_mask=None) -> Registration:
        self.seen, self.masks = fixed, (fixed_mask, moving_mask)
        field = DisplacementField(torch.from_numpy(np.indices(fixed.grid.shape)[None]).float(), fixed.grid)
        return Registration(field, DisplacementField(-field.displacement, moving.grid), ["short"], "short 1")


def test_short_axes_are_continued_for_a_tool_and_its_field_is_cut_back(generator):
    image = Volume(generator.random((8, 7, 3)), Grid.centred((8, 7, 3), (1, 1, 4), (0, 0, 0)))
    tool = Short({})
    found = tool.register(image, image, image.with_data(image.data > 0.5))
    assert tool.seen.grid.shape == (8, 7, 6)
    np.testing.assert_array_equal(tool.masks[0].data, tool.seen.data > 0.5)
    assert tool.masks[1] is None
    np.testing.assert_array_equal(tool.seen.data[..., :3], image.data)
    np.testing.assert_array_equal(tool.seen.data[..., 3:], np.repeat(image.data[..., 2:], 3, axis=-1))
    np.testing.assert_array_equal(tool.seen.grid.affine, image.grid.affine)
    expected = torch.from_numpy(np.indices((8, 7, 3))[None]).float()
    torch.testing.assert_close(found.field.displacement, expected)
    torch.testing.assert_close(found.inverse.displacement, -expected)
    assert found.field.grid is image.grid and found.inverse.grid is image.grid


def test_an_exception_of_ants_is_a_tool_error(monkeypatch):
    from regcore.images import ants as bridge

    def fails(*_, **__):
        raise RuntimeError("Registration failed with error code 1")

    monkeypatch.setattr(bridge.load(), "registration", fails)
    with pytest.raises(ToolError, match="ANTs failed: RuntimeError: Registration failed with error code 1"):
        make_method("syn", {}).register(*related_pair(2)[:2])


class Careless(External):
    """A tool that leaves whatever ``leave`` writes as its field."""

    settings_type = NoSettings

    def __init__(self, leave):
        super().__init__({})
        self.leave = leave

    def run(self, fixed: Volume, moving: Volume, folder: Path) -> Registration:
        self.leave(folder / "field.nii.gz", fixed.grid)
        return Registration(on_grid(read_field(folder / "field.nii.gz"), fixed.grid), None, ["careless"], "careless 1")


def write_nothing(path: Path, grid: Grid) -> None:
    pass


def write_nan(path: Path, grid: Grid) -> None:
    DisplacementField(torch.full((1, grid.ndim, *grid.shape), torch.nan), grid).save(path)


def write_elsewhere(path: Path, grid: Grid) -> None:
    affine = grid.affine.copy()
    affine[0, -1] += 1
    DisplacementField.identity(Grid(grid.shape, affine)).save(path)


@pytest.mark.parametrize(
    ("leave", "message"),
    [(write_nothing, "no such file"), (write_nan, "NaN or infinite"), (write_elsewhere, "not on the grid")],
)
def test_an_unusable_field_is_a_tool_error(leave, message):
    with pytest.raises(ToolError, match=message):
        Careless(leave).register(*related_pair(2)[:2])


def test_a_program_that_cannot_be_started_is_a_tool_error(tmp_path):
    with pytest.raises(ToolError, match="nowhere cannot be started"):
        run_program([str(tmp_path / "nowhere")], tmp_path, 1)


def test_greedy_s_own_failure_is_a_tool_error(tmp_path):
    skip_without("greedy")
    with pytest.raises(ToolError, match="greedy failed"):
        call_greedy(2, "-d 2 -i absent.nii.gz absent.nii.gz -m SSD -n 1 -o warp.nii.gz", tmp_path)


@pytest.mark.parametrize("convert", [from_voxels, from_ras])
def test_a_field_of_another_shape_is_a_tool_error(convert):
    with pytest.raises(ToolError, match=r"has the shape \(64, 47, 2\), the image has \(64, 48\)"):
        convert(np.zeros((64, 47, 2)), oblique_grid(2))


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("greedy", {"metric": "CC"}),
        ("greedy", {"sigmas": [2.0]}),
        ("greedy", {"seed": 0}),
        ("niftyreg", {"spacing_mm": 0}),
        ("niftyreg", {"bending_energy": 1}),
        ("niftyreg", {"preset": "fast"}),
        ("dipy", {"step": 0}),
        ("dipy", {"iterations": []}),
        ("convexadam", {"grid_sp": 1}),
        ("convexadam", {"selected_smooth": 4}),
        ("demons", {"kind": "thirion"}),
        ("demons", {"shrink": [2, 1]}),
        ("deeds", {"alpha": 0}),
        ("deeds", {"grid": [8, 4]}),
        ("fireants", {"cc_kernel_size": 4}),
        ("fireants", {"scales": [2, 1]}),
        ("elastix", {"similarity": "nmi"}),
        ("elastix", {"samples": 10}),
    ],
)
def test_settings_out_of_range_are_refused(name, settings):
    with pytest.raises(InputError, match=next(iter(settings))):
        make_method(name, settings)
