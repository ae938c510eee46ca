"""What guides a registration besides its two images: further images of both subjects, and label maps of both."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from regcore.alignment.aligner import Aligned
from regcore.alignment.prepared import Prepared
from regcore.alignment.preprocess import Scan, placed
from regcore.alignment.resampling import resample
from regcore.alignment.settings import PreprocessSettings
from regcore.errors import InputError
from regcore.images.volume import Volume, read_grid, read_labels, read_volume
from regcore.methods import methods_with
from regcore.methods.base import Method
from regcore.methods.registration import shared_codes


@dataclass(frozen=True)
class Guides:
    """Further images and label maps of the two subjects, each where its header places it in its subject's world.

    Parameters
    ----------
    fixed, moving : tuple of Path
        Further images, pair by pair.
    weights : tuple of float
        Of the similarity of each pair, that of the images to register first; empty: all equal.
    fixed_labels, moving_labels : Path or None
        Label maps.
    label_weight : float or None
        Weight of their overlap; None: the method's own.

    Examples
    --------
    >>> from pathlib import Path
    >>> from regcore.commands.guides import Guides
    >>> from regcore.methods import make_method
    >>> guides = Guides(fixed=(Path("f_t2.nii"),), moving=(Path("m_t2.nii"),), weights=(3, 1))
    >>> guides.check("instance", make_method("instance"))
    >>> guides.shares, guides.files
    ([0.75, 0.25], [PosixPath('f_t2.nii'), PosixPath('m_t2.nii')])
    """

    fixed: tuple[Path, ...] = ()
    moving: tuple[Path, ...] = ()
    weights: tuple[float, ...] = ()
    fixed_labels: Path | None = None
    moving_labels: Path | None = None
    label_weight: float | None = None

    @property
    def files(self) -> list[Path]:
        """The files that are read."""
        return [*self.fixed, *self.moving, *(path for path in (self.fixed_labels, self.moving_labels) if path)]

    @property
    def shares(self) -> list[float]:
        """The weight of every pair of images, with the sum 1."""
        weights = self.weights or (1.0,) * (1 + len(self.fixed))
        return [weight / sum(weights) for weight in weights]

    def check(self, name: str, method: Method) -> None:
        """Refuse what the method ``name`` cannot use, or what is incomplete.

        Raises
        ------
        InputError
            Names the option, and the remedy.
        """
        if len(self.fixed) != len(self.moving):
            raise InputError(
                f"--fixed is given {_times(self.fixed)} and --moving {_times(self.moving)}: further images come in "
                "pairs, one of each subject, in the same order"
            )
        if self.weights and not self.fixed:
            raise InputError("--weights: there is one pair of images; add others by --fixed and --moving")
        if self.weights and len(self.weights) != 1 + len(self.fixed):
            raise InputError(
                f"--weights: {len(self.weights)} given for {1 + len(self.fixed)} pairs of images; give one for each, "
                "that of FIXED and MOVING first"
            )
        if (self.fixed_labels is None) != (self.moving_labels is None):
            given, other = ("fixed", "moving") if self.moving_labels is None else ("moving", "fixed")
            raise InputError(f"--{given}-labels: give --{other}-labels too, a map with the same codes")
        if self.label_weight is not None and self.fixed_labels is None:
            raise InputError("--label-weight: give --fixed-labels and --moving-labels too")
        if self.fixed and not method.uses_channels:
            able = ", ".join(methods_with("uses_channels"))
            raise InputError(f"--method {name} compares one image of each subject; {able} take --fixed and --moving")
        if self.fixed_labels is not None and not method.uses_labels:
            able = ", ".join(methods_with("uses_labels"))
            raise InputError(
                f"--method {name} cannot be guided by labels; {able} takes --fixed-labels and --moving-labels"
            )

    def check_places(self, fixed: Path, moving: Path) -> None:
        """Refuse files whose headers place them elsewhere than the images to register; voxels are not read.

        Raises
        ------
        InputError
            A file cannot be used, has another number of dimensions than its image, or does not overlap it.
        """
        for image, others, labels in (
            (fixed, self.fixed, self.fixed_labels),
            (moving, self.moving, self.moving_labels),
        ):
            for path in others:
                _require_overlap(
                    path,
                    image,
                    f"or bring it there: regcore register {image} {path} --method affine --affine rigid -o <folder>, "
                    "then give <folder>/warped.nii.gz",
                )
            if labels is not None:
                _require_overlap(labels, image, "or give the map of this image")

    def read(self) -> "Read":
        """Read the files.

        Raises
        ------
        InputError
            A file cannot be used, or the label maps have no code in common.
        """
        images = [[read_volume(path) for path in paths] for paths in (self.fixed, self.moving)]
        if self.fixed_labels is None or self.moving_labels is None:
            return Read(images[0], images[1], None, None, [])
        labels = read_labels(self.fixed_labels), read_labels(self.moving_labels)
        codes = shared_codes(*labels)
        if not codes:
            raise InputError(
                f"{self.fixed_labels} and {self.moving_labels} have no label but 0 in common "
                f"({_some(labels[0])}; {_some(labels[1])}); number the same structures alike in both"
            )
        return Read(images[0], images[1], *labels, codes)

    def record(self, fixed: Path, moving: Path, method: Method, codes: Sequence[int]) -> dict[str, Any]:
        """What ``register.json`` says of them: ``channels`` and ``guiding_labels``, None without any."""
        found: dict[str, Any] = {"channels": None, "guiding_labels": None}
        if self.fixed:
            pairs = zip([fixed, *self.fixed], [moving, *self.moving], self.shares, strict=True)
            found["channels"] = [{"fixed": str(f), "moving": str(m), "weight": share} for f, m, share in pairs]
        if self.fixed_labels is not None:
            weight = method.label_weight if self.label_weight is None else self.label_weight
            found["guiding_labels"] = {
                "fixed": str(self.fixed_labels),
                "moving": str(self.moving_labels),
                "weight": weight,
                "codes": list(codes),
            }
        return found

    @property
    def notes(self) -> list[str]:
        """What a reader of the result must know."""
        if self.fixed_labels is None:
            return []
        return [
            f"the labels in {self.fixed_labels} and {self.moving_labels} guided this registration: their overlap is "
            "no measure of its quality, and must not be reported as one"
        ]


class Read(NamedTuple):
    """The files of :class:`Guides`, and the codes that both label maps have.

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.alignment.prepared import Prepared
    >>> from regcore.alignment.preprocess import Scan
    >>> from regcore.commands.guides import Read
    >>> from regcore.images.volume import Grid, Volume
    >>> coarse, fine = (Grid.centred((n, n), (16 / n, 16 / n), (0, 0)) for n in (8, 16))
    >>> first = Prepared(Volume(np.eye(8, dtype=np.float32), coarse), np.eye(3), coarse)
    >>> further = Volume(50 * np.eye(16), fine)
    >>> scans = Scan(first.image), Scan(first.image)
    >>> fixed, _ = Read([further], [further], None, None, []).added(first, first, scans)
    >>> fixed.channels[0].image.grid is coarse, fixed.labels
    (True, None)
    """

    fixed: list[Volume]
    moving: list[Volume]
    fixed_labels: Volume | None
    moving_labels: Volume | None
    codes: list[int]

    def added(self, fixed: Prepared, moving: Prepared, scans: tuple[Scan, Scan]) -> tuple[Prepared, Prepared]:
        """The prepared scans with channels and labels, brought to their grid by the same maps.

        Parameters
        ----------
        fixed, moving : Prepared
            The images to register, aligned.
        scans : (Scan, Scan)
            The same as scanned: their masks count for the channels too.
        """
        return (
            _with(fixed, scans[0], self.fixed, self.fixed_labels),
            _with(moving, scans[1], self.moving, self.moving_labels),
        )


def _require_overlap(path: Path, image: Path, remedy: str) -> None:
    own, grid = read_grid(path), read_grid(image)
    if own.ndim != grid.ndim:
        raise InputError(f"{path} is {own.ndim}-D and {image} is {grid.ndim}-D; give files of one subject")
    if not own.overlaps(grid):
        raise InputError(
            f"{path}: does not overlap {image} in space, by their headers, but must be in register with it; correct "
            f"the header, {remedy}"
        )


def _with(first: Prepared, scan: Scan, channels: Sequence[Volume], labels: Volume | None) -> Prepared:
    grid = first.image.grid
    if labels is not None:
        labels = Volume(resample(labels, grid, first.to_native, nearest=True).data, grid, labels.path)
    aligned = Aligned(first.to_native, first.aligned)
    others = [placed(_masked_alike(image, scan.mask), aligned, grid, PreprocessSettings()) for image in channels]
    return replace(first, channels=tuple(others), labels=labels)


def _masked_alike(image: Volume, mask: Volume | None) -> Scan:
    """A further image of a subject with the mask of the first."""
    if mask is None:
        return Scan(image)
    return Scan(image, resample(mask, image.grid, np.eye(image.grid.ndim + 1), nearest=True))


def _times(paths: Sequence[Path]) -> str:
    return {0: "not at all", 1: "once"}.get(len(paths), f"{len(paths)} times")


def _some(labels: Volume, most: int = 5) -> str:
    codes = [str(code) for code in np.unique(labels.data) if code]
    return ", ".join(codes[:most]) + (", …" if len(codes) > most else "") if codes else "none"
