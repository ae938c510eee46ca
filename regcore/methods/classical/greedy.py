"""Greedy diffeomorphic registration, through picsl_greedy."""

from collections.abc import Sequence
from contextlib import chdir
from pathlib import Path
from typing import ClassVar

from regcore.images.field import read_field
from regcore.images.volume import Volume
from regcore.methods.base import Channel, Registration
from regcore.methods.classical.external import (
    FIXED,
    FIXED_MASK,
    MOVING,
    External,
    failing_as_tool_error,
    joined_mask,
    package_version,
    save_images,
    save_mask,
)
from regcore.methods.classical.fields import on_grid
from regcore.methods.settings.classical.greedy import GreedySettings

#: File names of the field and its inverse in the tool's folder.
WARP, INVERSE = "warp.nii.gz", "inverse.nii.gz"


class Greedy(External):
    """Greedy diffeomorphic registration (Yushkevich et al., Alzheimers Dement. 12:P126, 2016).

    See [1]_.  The tool computes the inverse numerically. Without ``velocity``, it is only as good as the field is
    invertible.

    References
    ----------
    .. [1] Yushkevich, Pluta, Wang, Wisse, Das and Wolk, "Fast automatic segmentation of hippocampal subfields and
       medial temporal lobe subregions in 3 tesla and 7 tesla T2-weighted MRI", Alzheimers Dement. 12:P126-P127, 2016.

    Examples
    --------
    >>> from regcore.methods import make_method
    >>> method = make_method("greedy", {"radius": 3, "iterations": [50, 20]})
    >>> print(method.arguments(ndim=3).partition(" -s ")[0])
    -d 3 -i fixed.nii.gz moving.nii.gz -m NCC 3x3x3 -n 50x20
    """

    settings_type: ClassVar = GreedySettings
    uses_masks: ClassVar = True
    uses_channels: ClassVar = True
    settings: GreedySettings

    @property
    def shortest(self) -> int:
        """Four voxels at the coarsest level, which ITK's recursive Gaussian needs."""
        return 4 * 2 ** (len(self.settings.iterations) - 1)

    def run(
        self,
        fixed: Volume,
        moving: Volume,
        folder: Path,
        fixed_mask: Volume | None = None,
        moving_mask: Volume | None = None,
        channels: Sequence[Channel] = (),
    ) -> Registration:
        save_images(fixed, moving, folder)
        for number, channel in enumerate(channels, start=2):
            for image, name in zip((channel.fixed, channel.moving), _names(number), strict=True):
                image.save(folder / name)
        # Not -mm for the moving mask: with SSD, greedy moves voxels into what it excludes.
        mask = save_mask(joined_mask(fixed_mask, moving_mask), "-gm", FIXED_MASK, folder)
        arguments = " ".join([self.arguments(fixed.grid.ndim, [channel.weight for channel in channels]), *mask])
        call_greedy(fixed.grid.ndim, arguments, folder)
        return Registration(
            on_grid(read_field(folder / WARP), fixed.grid),
            on_grid(read_field(folder / INVERSE), moving.grid),
            [f"greedy {arguments}"],
            package_version("picsl_greedy"),
        )

    def arguments(self, ndim: int, shares: Sequence[float] = ()) -> str:
        """Arguments of greedy for images of ``ndim`` dimensions, with further pairs of these weights."""
        settings = self.settings
        window = " " + "x".join([str(settings.radius)] * ndim) if settings.metric == "NCC" else ""
        iterations = "x".join(map(str, settings.iterations))
        update, total = settings.sigmas
        velocity = "-sv " if settings.velocity else ""
        images = f"-i {FIXED} {MOVING}"
        if shares:
            further = (f"-w {share:.6g} -i {' '.join(_names(number))}" for number, share in enumerate(shares, start=2))
            images = " ".join([f"-w {1 - sum(shares):.6g} {images}", *further])
        # By default, greedy rounds saved warps to 0.1 voxels; -wp 0 keeps all digits.
        return (
            f"-d {ndim} {images} -m {settings.metric}{window} -n {iterations} -s {update}vox {total}vox "
            f"{velocity}-seed {settings.seed} -threads {self.threads} -V 0 -wp 0 -o {WARP} -oinv {INVERSE}"
        )


def _names(number: int) -> tuple[str, str]:
    """File names of a further pair of images."""
    return f"fixed_{number}.nii.gz", f"moving_{number}.nii.gz"


def call_greedy(ndim: int, arguments: str, folder: Path) -> None:
    """Call greedy in this process.

    Parameters
    ----------
    ndim : {2, 3}
        Dimensions of the images.
    arguments : str
        A command line with file names relative to ``folder``.
    folder : Path
        The folder of the files.

    Raises
    ------
    ToolError
        Greedy failed.
    """
    import picsl_greedy

    tool = {2: picsl_greedy.Greedy2D, 3: picsl_greedy.Greedy3D}[ndim]()
    # Relative names, because greedy splits its command line at every space.
    with chdir(folder), failing_as_tool_error("greedy"):
        tool.execute(arguments)
