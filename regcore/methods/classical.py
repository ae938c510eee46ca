"""Baselines that need no training: identity, affine, and ANTs SyN."""

from typing import ClassVar

import numpy as np

from regcore import ants_bridge
from regcore.field import DisplacementField, read_field
from regcore.methods.base import Method, Registration
from regcore.volume import Volume


class Identity(Method):
    """No registration: the scans as their headers place them."""

    aligned = False

    def register(self, fixed: Volume, moving: Volume) -> Registration:
        return Registration(DisplacementField.identity(fixed.grid), DisplacementField.identity(moving.grid))


class Affine(Identity):
    """The affine alignment that every other method starts from, and nothing else."""

    aligned = True


class SyN(Method):
    """ANTs symmetric normalisation (Avants et al., Med. Image Anal. 12:26, 2008).

    The images are aligned already, so only the deformable stage runs (``SyNOnly``).
    """

    properties: ClassVar[dict] = {
        "metric": {
            "description": "CC (local cross-correlation), mattes (mutual information) or meansquares",
            "enum": ["CC", "mattes", "meansquares"],
            "default": "CC",
        },
        "radius": {
            "description": "radius of the CC window in voxels; number of bins for mattes",
            "type": "integer",
            "minimum": 1,
            "default": 2,
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

    def register(self, fixed: Volume, moving: Volume) -> Registration:
        ants = ants_bridge.load()
        fixed_image, moving_image = ants_bridge.to_ants(fixed), ants_bridge.to_ants(moving)
        arguments = {
            "type_of_transform": "SyNOnly",
            "initial_transform": "Identity",
            "syn_metric": self.settings["metric"],
            "syn_sampling": self.settings["radius"],
            "grad_step": self.settings["step"],
            "flow_sigma": self.settings["flow_variance"],
            "total_sigma": self.settings["total_variance"],
            "reg_iterations": tuple(self.settings["iterations"]),
        }
        with ants_bridge.fresh_prefix() as prefix:
            result = ants.registration(fixed_image, moving_image, outprefix=prefix, **arguments)
            forward = _composed(ants, fixed_image, moving_image, result["fwdtransforms"], prefix + "forward_")
            inverse = _composed(
                ants,
                moving_image,
                fixed_image,
                result["invtransforms"],
                prefix + "inverse_",
                whichtoinvert=[path.endswith(".mat") for path in result["invtransforms"]],
            )
        called = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        command = f"ants.registration(fixed, moving, {called})  # antspyx {ants.__version__}"
        return Registration(_on(fixed, forward), _on(moving, inverse), [command])


def _composed(ants, fixed_image, moving_image, transforms, prefix: str, **kwargs) -> DisplacementField:
    path = ants.apply_transforms(fixed_image, moving_image, transforms, compose=prefix, **kwargs)
    return read_field(path)


def _on(volume: Volume, field: DisplacementField) -> DisplacementField:
    """The same field under the volume's own grid, whose numbers ANTs has rounded."""
    if not np.allclose(field.grid.affine, volume.grid.affine, atol=1e-3):
        raise RuntimeError("ANTs returned a field on another grid than the fixed image's")
    return DisplacementField(field.displacement, volume.grid)
