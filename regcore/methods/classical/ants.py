"""ANTs symmetric normalisation, through antspyx."""

from pathlib import Path
from typing import ClassVar

from regcore.images import ants as ants_bridge
from regcore.images.field import DisplacementField, read_field
from regcore.images.volume import Volume
from regcore.methods.base import Registration
from regcore.methods.classical.external import External, on_grid


class SyN(External):
    """Symmetric normalisation (Avants et al., Med. Image Anal. 12:26, 2008), deformable stage only (``SyNOnly``).

    Of the variants that antspyx offers, this one alone takes every setting: ``SyNCC`` ignores step, smoothing and
    iterations, ``antsRegistrationSyN[so,4]`` the radius.
    """

    presets: ClassVar[dict[str, dict]] = {
        "recommended": {},
        "voxelmorph-paper": {
            "radius": 4,
            "step": 0.25,
            "flow_variance": 9,
            "total_variance": 0.2,
            "iterations": [201, 201, 201],
        },
        "quick": {"metric": "mattes", "step": 0.1, "iterations": [100, 70, 50, 0]},
        "cross-contrast": {"metric": "mattes"},
    }
    properties: ClassVar[dict] = {
        "preset": {
            "description": "recommended (local cross-correlation, as the ANTs scripts have it); voxelmorph-paper (the "
            "baseline of VoxelMorph, hours for a whole brain); quick (mutual information, not at full resolution); "
            "cross-contrast (mutual information)",
            "enum": ["recommended", "voxelmorph-paper", "quick", "cross-contrast"],
            "default": "recommended",
        },
        "metric": {
            "description": "CC (local cross-correlation), mattes (mutual information) or meansquares",
            "enum": ["CC", "mattes", "meansquares"],
            "default": "CC",
        },
        "radius": {
            "description": "radius of the CC window in voxels",
            "type": "integer",
            "minimum": 1,
            "default": 2,
        },
        "bins": {
            "description": "bins of the histograms of mattes",
            "type": "integer",
            "minimum": 4,
            "default": 32,
        },
        "step": {
            "description": "gradient step",
            "type": "number",
            "exclusiveMinimum": 0,
            "default": 0.25,
        },
        "flow_variance": {
            "description": "Gaussian smoothing of each update, variance in voxels²",
            "type": "number",
            "minimum": 0,
            "default": 3,
        },
        "total_variance": {
            "description": "Gaussian smoothing of the whole field, variance in voxels²",
            "type": "number",
            "minimum": 0,
            "default": 0,
        },
        "iterations": {
            "description": "iterations at each resolution, coarse to fine",
            "type": "array",
            "items": {"type": "integer", "minimum": 0},
            "minItems": 1,
            "default": [100, 70, 50, 20],
        },
    }

    def run(self, fixed: Volume, moving: Volume, folder: Path) -> Registration:
        ants = ants_bridge.load()
        images = ants_bridge.to_ants(fixed), ants_bridge.to_ants(moving)
        settings = self.settings
        arguments = {
            "type_of_transform": "SyNOnly",
            "initial_transform": "Identity",
            "syn_metric": settings["metric"],
            "syn_sampling": settings["bins"] if settings["metric"] == "mattes" else settings["radius"],
            "grad_step": settings["step"],
            "flow_sigma": settings["flow_variance"],
            "total_sigma": settings["total_variance"],
            "reg_iterations": tuple(settings["iterations"]),
        }
        prefix = str(folder / "pair_")  # antspyx collects its results by a glob on it
        found = ants.registration(*images, outprefix=prefix, **arguments)
        forward = _composed(*images, found["fwdtransforms"], prefix + "forward_")
        inverse = _composed(
            *reversed(images),
            found["invtransforms"],
            prefix + "inverse_",
            whichtoinvert=[path.endswith(".mat") for path in found["invtransforms"]],
        )
        called = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        return Registration(
            on_grid(forward, fixed.grid),
            on_grid(inverse, moving.grid),
            [f"{ants_bridge.THREADS_VARIABLE}={self.threads}", f"ants.registration(fixed, moving, {called})"],
            f"antspyx {ants.__version__}",
        )


def _composed(fixed_image, moving_image, transforms, prefix: str, **kwargs) -> DisplacementField:
    ants = ants_bridge.load()
    return read_field(ants.apply_transforms(fixed_image, moving_image, transforms, compose=prefix, **kwargs))
