"""ANTs symmetric normalisation, through antspyx."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from regcore.images import ants as ants_bridge
from regcore.images.field import DisplacementField, read_field
from regcore.images.volume import Volume
from regcore.methods.base import Channel, Registration
from regcore.methods.classical.external import External, failing_as_tool_error
from regcore.methods.classical.fields import on_grid
from regcore.methods.settings.classical.ants import SyNSettings


class SyN(External):
    """Symmetric normalisation (Avants et al., Med. Image Anal. 12:26, 2008), deformable stage only (``SyNOnly``).

    See [1]_.  Of the variants in antspyx, only this one takes every setting: ``SyNCC`` ignores step, smoothing and
    iterations, ``antsRegistrationSyN[so,4]`` the radius.

    References
    ----------
    .. [1] Avants, Epstein, Grossman and Gee, "Symmetric diffeomorphic image registration with cross-correlation:
       Evaluating automated labeling of elderly and neurodegenerative brain", Med. Image Anal. 12:26-41, 2008.

    Examples
    --------
    >>> from regcore.methods import make_method
    >>> method = make_method("syn", {"metric": "mattes", "iterations": [100, 50]})
    >>> method.settings.metric, method.settings.iterations
    ('mattes', [100, 50])
    """

    settings_type: ClassVar = SyNSettings
    uses_masks: ClassVar = True
    uses_channels: ClassVar = True
    settings: SyNSettings

    @property
    def shortest(self) -> int:
        """What ITK's recursive Gaussian needs."""
        return 4

    def run(
        self,
        fixed: Volume,
        moving: Volume,
        folder: Path,
        fixed_mask: Volume | None = None,
        moving_mask: Volume | None = None,
        channels: Sequence[Channel] = (),
    ) -> Registration:
        ants = ants_bridge.load()
        first, second = ants_bridge.to_ants(fixed), ants_bridge.to_ants(moving)
        settings = self.settings
        arguments = {
            "type_of_transform": "SyNOnly",
            "initial_transform": "Identity",
            "syn_metric": settings.metric,
            "syn_sampling": settings.bins if settings.metric == "mattes" else settings.radius,
            "grad_step": settings.step,
            "flow_sigma": settings.flow_variance,
            "total_sigma": settings.total_variance,
            "reg_iterations": tuple(settings.iterations),
        }
        prefix = str(folder / "pair_")  # antspyx finds its results with a glob on this prefix
        given = {"mask": fixed_mask, "moving_mask": moving_mask}
        masks = {name: ants_bridge.to_ants(mask) for name, mask in given.items() if mask is not None}
        further = self._further(channels)
        with failing_as_tool_error("ANTs"):
            found = ants.registration(
                first, second, outprefix=prefix, **arguments, **masks, multivariate_extras=further
            )
        forward = _composed(first, second, found["fwdtransforms"], prefix + "forward_")
        inverse = _composed(
            second,
            first,
            found["invtransforms"],
            prefix + "inverse_",
            whichtoinvert=[path.endswith(".mat") for path in found["invtransforms"]],
        )
        words = [*(f"{name}={value!r}" for name, value in arguments.items()), *(f"{name}={name}" for name in masks)]
        if further:
            listed = (
                f"({metric!r}, fixed_{number}, moving_{number}, {weight:.6g}, {sampling})"
                for number, (metric, _, _, weight, sampling) in enumerate(further, start=2)
            )
            words.append(f"multivariate_extras=[{', '.join(listed)}]")
        called = ", ".join(words)
        return Registration(
            on_grid(forward, fixed.grid),
            on_grid(inverse, moving.grid),
            [f"{ants_bridge.THREADS_VARIABLE}={self.threads}", f"ants.registration(fixed, moving, {called})"],
            f"antspyx {ants.__version__}",
        )

    def _further(self, channels: Sequence[Channel]) -> list[tuple] | None:
        """Metrics of further pairs of images; antspyx gives the first pair the weight 1."""
        first = 1 - sum(channel.weight for channel in channels)
        settings = self.settings
        sampling = settings.bins if settings.metric == "mattes" else settings.radius
        pairs = [map(ants_bridge.to_ants, (channel.fixed, channel.moving)) for channel in channels]
        weights = [channel.weight / first for channel in channels]
        found = [(settings.metric, *pair, weight, sampling) for pair, weight in zip(pairs, weights, strict=True)]
        return found or None


def _composed(fixed_image, moving_image, transforms, prefix: str, **kwargs) -> DisplacementField:
    ants = ants_bridge.load()
    return read_field(ants.apply_transforms(fixed_image, moving_image, transforms, compose=prefix, **kwargs))
