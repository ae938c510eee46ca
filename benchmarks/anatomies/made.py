"""Anatomies whose motion is an equation: organs that slide, a stiff lump in soft tissue, a chamber that contracts.

A made anatomy is a *material*, which has an intensity and a label at every position of the moving image, and a
*motion*, the true map from the fixed to the moving image.  The moving image shows the material, and the fixed one the
material at the positions that the motion leads to: both are sampled from the same equations, so that no interpolation
of one image blurs the other.  Positions are mm from the middle of the grid; each anatomy lies obliquely in it.

``sliding``: within a cylinder (a lung) tissue moves along its axis, and the wall around it (with ribs) stays.  The
motion is tangential at the interface, so that neither gaps nor overlaps come about, and jumps there.

``stiff``: a ball that cannot be deformed is turned and shifted in an elastic medium.  The medium follows Kelvin's
solution for a rigid sphere; the rotation fades with the cube of the distance, as in Stokes' solution.

``contraction``: an ellipsoidal chamber shortens its radius by a quarter to 30 %.  Its wall and what is around it keep
their volume, r³ → r³ + k, so the wall thickens; the cavity's contents leave.  The wall twists about the long axis.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from capture.motion import rotation
from scipy.ndimage import gaussian_filter, map_coordinates, spline_filter

from anatomies.pair import POINTS, Pair
from regcore.alignment.intensities import normalise
from regcore.evaluation.accuracy import random_points
from regcore.images.grid import Grid
from regcore.images.volume import Volume

SIZE, SPACING = 64, 1.5
#: SD of the noise of either image; tissue is 0.2 to 1.
NOISE = 0.03
#: Samples across a voxel, of which it is the mean.
SAMPLES = 2
#: Anatomies are turned by up to this about a random axis.
DEGREES = 20.0
#: Edge of the block of texture, mm, which is repeated.
BLOCK = 96
#: Poisson's ratio of soft tissue.
POISSON = 0.45

Positions = np.ndarray


@dataclass(frozen=True, eq=False)
class Anatomy:
    """A material and its motion.

    Parameters
    ----------
    material : callable
        Positions in the moving image, (..., 3), to intensities and labels, (...).
    motion : callable
        Positions in the fixed image, (..., 3), to those in the moving image.
    """

    material: Callable[[Positions], tuple[np.ndarray, np.ndarray]]
    motion: Callable[[Positions], Positions]


def grid_of(size: int = SIZE) -> Grid:
    """The grid of a made pair; always of the same length, so that fewer voxels are larger."""
    return Grid.centred((size,) * 3, (SPACING * SIZE / size,) * 3, (0, 0, 0))


def make(anatomy: Anatomy, name: str, generator: np.random.Generator, size: int = SIZE) -> Pair:
    """Sample the two images of an anatomy, with noise, and the true map at points of what is labelled."""
    grid = grid_of(size)
    fixed, fixed_labels = sampled(anatomy.material, grid, anatomy.motion)
    moving, moving_labels = sampled(anatomy.material, grid)
    images = [normalise(np.maximum(i + NOISE * generator.standard_normal(i.shape), 0)) for i in (fixed, moving)]
    points = random_points(fixed_labels > 0, grid, POINTS, generator)
    return Pair(
        name=name,
        fixed_name=f"{name}:moved",
        moving_name=f"{name}:still",
        fixed=Volume(images[0], grid),
        moving=Volume(images[1], grid),
        fixed_labels=Volume(fixed_labels, grid),
        moving_labels=Volume(moving_labels, grid),
        points=points,
        targets=anatomy.motion(points),
    )


def sampled(material: Callable, grid: Grid, motion: Callable | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Intensities averaged over every voxel, and labels at its middle, float64 and int16, (*grid.shape)."""
    moved = motion or (lambda positions: positions)
    places = np.moveaxis(np.indices(grid.shape), 0, -1)
    _, labels = material(moved(grid.to_world(places)))
    offsets = (np.arange(SAMPLES) + 0.5) / SAMPLES - 0.5
    total = np.zeros(grid.shape)
    for offset in np.stack(np.meshgrid(*[offsets] * 3), axis=-1).reshape(-1, 3):
        total += material(moved(grid.to_world(places + offset)))[0]
    return total / SAMPLES**3, labels.astype(np.int16)


def texture(width: float, generator: np.random.Generator) -> Callable[[Positions], np.ndarray]:
    """A random smooth function of SD 1 whose details are about ``width`` mm in size."""
    block = gaussian_filter(generator.standard_normal((BLOCK,) * 3), width, mode="wrap")
    filtered = spline_filter(block / block.std(), order=3, mode="grid-wrap")
    return lambda positions: map_coordinates(
        filtered, np.moveaxis(positions, -1, 0), order=3, mode="grid-wrap", prefilter=False
    )


def in_frame(anatomy: Anatomy, generator: np.random.Generator) -> Anatomy:
    """Turn an anatomy, so that its axes are not those of the grid."""
    axes = rotation(3, DEGREES, generator)
    return Anatomy(lambda y: anatomy.material(y @ axes), lambda x: anatomy.motion(x @ axes) @ axes.T)


def sliding(generator: np.random.Generator) -> Anatomy:
    """A cylinder of tissue that slides within a wall by 6 to 9 mm; see the module."""
    radii = generator.uniform(19, 22), generator.uniform(24, 27)
    distance, reach = generator.choice([-1, 1]) * generator.uniform(6, 9), generator.uniform(24, 28)
    phase, wall = generator.uniform(0, 14), 1.45
    vessels, muscle = texture(2.0, generator), texture(2.5, generator)

    def level(positions: Positions) -> np.ndarray:
        return np.hypot(positions[..., 0] / radii[0], positions[..., 1] / radii[1])

    def material(y: Positions):
        inside, body, height = level(y) < 1, level(y) < wall, y[..., 2]
        lobe = np.digitize(height + 0.3 * y[..., 0], [-14, 10])
        rib = body & ~inside & (level(y) > 1.1) & ((height + phase) % 14 < 6)
        labels = np.select([inside, rib, body], [1 + lobe, 4, 5], 0)
        within = 0.25 + 0.08 * lobe + 0.12 * vessels(y)
        around = np.where(rib, 0.95, 0.65) + 0.08 * muscle(y)
        return np.select([inside, body], [within, around], 0.0), labels

    def motion(x: Positions) -> Positions:
        along = distance * np.exp(-((x[..., 2] / reach) ** 2)) * (level(x) < 1)
        return x + np.stack([np.zeros_like(along), np.zeros_like(along), along], axis=-1)

    return in_frame(Anatomy(material, motion), generator)


def stiff(generator: np.random.Generator) -> Anatomy:
    """A rigid ball that turns by 10 to 20° and moves by 4 to 6 mm in an elastic medium; see the module."""
    radius, centre = generator.uniform(10, 12), generator.uniform(-8, 8, 3)
    shift, axis = generator.standard_normal((2, 3))
    shift *= generator.uniform(4, 6) / np.linalg.norm(shift)
    axis /= np.linalg.norm(axis)
    turn = np.deg2rad(generator.uniform(10, 20))
    body = generator.uniform(36, 42, 3)
    medium, lump = texture(2.5, generator), texture(2.5, generator)

    def material(y: Positions):
        ball = np.linalg.norm(y - centre - shift, axis=-1) < radius
        inside = np.linalg.norm(y / body, axis=-1) < 1
        part = 2 * (y[..., 0] > 0) + (y[..., 1] > 0)
        labels = np.select([ball, inside], [1, 2 + part], 0)
        tissue = 0.4 + 0.06 * part + 0.1 * medium(y)
        return np.select([ball, inside], [0.9 + 0.05 * lump(y), tissue], 0.0), labels

    def motion(x: Positions) -> Positions:
        away = x - centre
        far = np.maximum(np.linalg.norm(away, axis=-1, keepdims=True), radius)
        away = turned(away, axis, turn * (radius / far) ** 3)
        return centre + away + beside_rigid_ball(away, far, radius, shift)

    return in_frame(Anatomy(material, motion), generator)


def turned(positions: Positions, axis: np.ndarray, angle: np.ndarray) -> Positions:
    """Rotate positions, (..., 3), about an axis through the origin by angles, (..., 1): Rodrigues' formula."""
    along = (positions @ axis)[..., None] * axis
    return along + np.cos(angle) * (positions - along) + np.sin(angle) * np.cross(axis, positions)


def beside_rigid_ball(away: Positions, far: np.ndarray, radius: float, shift: np.ndarray) -> Positions:
    """Displacement of an infinite elastic medium that sticks to a rigid ball, which is shifted.

    u = C [(3 − 4ν) s/r + (s·x) x/r³ + a²/3 (s/r³ − 3 (s·x) x/r⁵)] with C = 3a / (10 − 12ν): Kelvin's solution for a
    force and a dipole, such that u = s on the ball of radius a.

    Parameters
    ----------
    away : ndarray, shape (..., 3)
        x, positions from the ball's centre, mm.
    far : ndarray, shape (..., 1)
        r, their length, but a within the ball, where u = s.
    radius, shift
        a, mm, and s, mm.
    """
    across = (away @ shift)[..., None] * away
    medium = (3 - 4 * POISSON) * shift / far + across / far**3 + radius**2 / 3 * (shift / far**3 - 3 * across / far**5)
    return np.where(far > radius, 3 * radius / (10 - 12 * POISSON) * medium, shift)


def contraction(generator: np.random.Generator) -> Anatomy:
    """A chamber whose radius of 24 mm shrinks by 25 to 30 % and which twists by up to 12°; see the module."""
    before, thick = 24.0, generator.uniform(8, 10)
    after = before * (1 - generator.uniform(0.25, 0.30))
    stretch = np.array([1, 1, 1.25]) * generator.uniform(0.95, 1.05, 3)
    twist = np.deg2rad(generator.choice([-1, 1]) * generator.uniform(6, 12))
    blood, wall, around = (texture(width, generator) for width in (4.0, 2.0, 2.5))

    def material(y: Positions):
        far = np.linalg.norm(y / stretch, axis=-1)
        sector = np.floor(2 * np.arctan2(y[..., 1], y[..., 0]) / np.pi).astype(int) % 4
        cavity, muscle = far < before, far < before + thick
        labels = np.select([cavity, muscle], [1, 2 + sector], 0)
        values = [0.95 + 0.03 * blood(y), 0.55 + 0.07 * wall(y)]
        return np.select([cavity, muscle], values, 0.3 + 0.08 * around(y)), labels

    def motion(x: Positions) -> Positions:
        scaled = x / stretch
        far = np.linalg.norm(scaled, axis=-1, keepdims=True)
        angle = twist * scaled[..., 2:] / before * np.exp(-((far / 40) ** 4))
        scaled = turned(scaled, np.array([0.0, 0.0, 1.0]), angle)
        grown = np.cbrt(far**3 + before**3 - after**3) / np.maximum(far, after)
        return scaled * np.where(far < after, before / after, grown) * stretch

    return in_frame(Anatomy(material, motion), generator)


ANATOMIES: dict[str, Callable[[np.random.Generator], Anatomy]] = {
    "sliding": sliding,
    "stiff": stiff,
    "contraction": contraction,
}
