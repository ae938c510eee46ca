"""What VoxelMorph and its descendants share: a U-Net that predicts a flow, and what a flow does to an image."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from regcore.errors import InputError
from regcore.losses import mind_ssc_descriptor
from regcore.methods.base import LearnedMethod
from regcore.networks.unet import ARCHITECTURES, FlowNetwork
from regcore.spatial import crop_to, integrate, pad_to_multiple, resample_displacement, warp

IMAGES, MIND = "images", "mind"
#: Channels of a pair of descriptors in two and three dimensions.
DESCRIPTORS = {2: 8, 3: 24}
#: Patches of three voxels: larger ones blur the boundaries that labels are told by.
DESCRIPTOR = {"radius": 1, "dilation": 2}

#: Settings of the network and its flow.
FLOW = {
    "architecture": {
        "description": "the U-Net; see regcore/networks/unet.py",
        "enum": list(ARCHITECTURES),
        "default": "paper",
    },
    "width": {
        "description": "multiplies the features of every layer (2 is VoxelMorph's ×2; 4 makes the 256 of SynthMorph)",
        "type": "number",
        "exclusiveMinimum": 0,
        "default": 1,
    },
    "input": {
        "description": "what the network sees: images (the papers), or mind, their self-similarity descriptors "
        "(MIND-SSC), which hardly change with contrast",
        "enum": [IMAGES, MIND],
        "default": IMAGES,
    },
    "passes": {
        "description": "how often the network looks at a pair; from the second time on it sees the moving image as "
        "warped so far, and what it finds is added to the velocity (the papers: 1)",
        "type": "integer",
        "minimum": 1,
        "default": 1,
    },
    "flow": {
        "description": "what the network predicts: velocity (integrated; invertible) or displacement",
        "enum": ["velocity", "displacement"],
        "default": "velocity",
    },
    "flow_resolution": {
        "description": "1: the flow is used on the images' grid; 2: on one half as fine",
        "enum": [1, 2],
        "default": 2,
    },
    "integration_steps": {
        "description": "squarings of scaling and squaring",
        "type": "integer",
        "minimum": 0,
        "default": 7,
    },
}


class FlowMethod(LearnedMethod):
    """A method whose network predicts a displacement, or a velocity that is integrated; settings ``FLOW``."""

    def __init__(self, settings: Mapping, where: str = "method"):
        super().__init__(settings, where)
        self._check_network(where)

    def _check_network(self, where: str) -> None:
        chosen = self.settings
        architecture = ARCHITECTURES[chosen["architecture"]]
        if architecture.resolution > chosen["flow_resolution"]:
            raise InputError(
                f"{where}: the architecture '{chosen['architecture']}' ends at half resolution; set "
                "'flow_resolution: 2'"
            )
        if chosen["passes"] > 1 and chosen["flow"] != "velocity":
            raise InputError(f"{where}: 'passes: {chosen['passes']}' adds velocities; set 'flow: velocity'")
        try:
            architecture.widened(chosen["width"])
        except ValueError as error:
            raise InputError(f"{where}: 'width: {chosen['width']}': {error}") from error

    @property
    def stride(self) -> int:
        """What images are padded to a multiple of before the network sees them."""
        return ARCHITECTURES[self.settings["architecture"]].stride

    def build(self, ndim: int) -> nn.Module:
        channels = 2 if self.settings["input"] == IMAGES else DESCRIPTORS[ndim]
        return FlowNetwork(ndim, self.settings["architecture"], self.settings["width"], channels)

    def network_input(self, fixed: Tensor, moving: Tensor) -> Tensor:
        """What the network sees of image pairs (B, 1, *space): (B, C, *padded)."""
        shown = [moving, fixed]
        if self.settings["input"] == MIND:
            with torch.no_grad():
                shown = [mind_ssc_descriptor(image, **DESCRIPTOR) for image in shown]
        return pad_to_multiple(torch.cat(shown, dim=1), self.stride)

    def predict(
        self, module: Callable[[Tensor], Tensor], fixed: Tensor, moving: Tensor, passes: int | None = None
    ) -> Tensor:
        """Flow on the padded grid at ``flow_resolution``, in voxels of that grid; ``passes``: not those set.

        The sum of velocities is to first order that of the composed warps, exp(v) ∘ exp(δ) ≈ exp(v + δ), as in
        log-domain demons (Vercauteren et al., MICCAI 2008); the weights are shared as in recursive cascades (Zhao et
        al., ICCV 2019).
        """
        flow = self._look(module, fixed, moving)
        for _ in range(1, passes or self.settings["passes"]):
            flow = flow + self._look(module, fixed, warp(moving, self.displacement(flow, fixed)))
        return flow

    def predict_in_training(self, module: Callable[[Tensor], Tensor], fixed: Tensor, moving: Tensor) -> Tensor:
        """Flow after a number of passes that is drawn from torch's global random state; the last alone is learned.

        What the passes before it cost is their forward calls alone.
        """
        if self.settings["passes"] == 1:
            return self.predict(module, fixed, moving)
        before = int(torch.randint(self.settings["passes"], ()))
        if before == 0:
            return self.predict(module, fixed, moving, passes=1)
        with torch.no_grad():
            flow = self.predict(module, fixed, moving, passes=before)
            moved = warp(moving, self.displacement(flow, fixed))
        return flow + self.predict(module, fixed, moved, passes=1)

    def _look(self, module: Callable[[Tensor], Tensor], fixed: Tensor, moving: Tensor) -> Tensor:
        pair = self.network_input(fixed, moving)
        flow = module(pair).float()
        shape = [n // self.settings["flow_resolution"] for n in pair.shape[2:]]
        return flow if list(flow.shape[2:]) == shape else resample_displacement(flow, shape)

    def displacements(self, flow: Tensor, image: Tensor) -> tuple[Tensor, Tensor | None]:
        inverse = None if self.settings["flow"] == "displacement" else self.displacement(-flow, image)
        return self.displacement(flow, image), inverse

    def displacement(self, flow: Tensor, image: Tensor) -> Tensor:
        if self.settings["flow"] == "velocity":
            flow = integrate(flow, self.settings["integration_steps"])
        factor = self.settings["flow_resolution"]
        if factor > 1:
            flow = resample_displacement(flow, [factor * n for n in flow.shape[2:]])
        return crop_to(flow, image.shape[2:])
