"""The convolutions of the U-Nets of VoxelMorph and its successors; without torch.

An :class:`Architecture` lists those of one network, and :data:`ARCHITECTURES` names those of papers and their code.
:mod:`regcore.networks.unet` builds them.
"""

import itertools
from dataclasses import dataclass, replace
from typing import Any

from regcore.errors import did_you_mean

CHOICES = {
    "downsampling": ("stride", "max-pool"),
    "full_skip": ("images", "features"),
    "upsampling": ("nearest", "linear"),
    "initialisation": ("uniform", "he"),
}


@dataclass(frozen=True)
class Architecture:
    """The convolutions of a U-Net, from the images down to 1/2ⁿ of their resolution and back up.

    The features before each halving go to the skip connection of that resolution.

    Attributes
    ----------
    encoder : tuple of int
        Features of the n convolutions on the way down.
    decoder : tuple of int
        Features of the n convolutions on the way up: at 1/2ⁿ, …, 1/4, 1/2, all except the first after a skip
        connection.
    at_half : tuple of int
        Features of further convolutions at half resolution.
    at_full : tuple of int
        Features of the convolutions at full resolution, the first after a skip connection.  None: the
        output stays at half resolution.
    downsampling : {"stride", "max-pool"}
        How resolution is halved: the next convolution has stride two, or follows max pooling over blocks of two
        voxels along each axis.
    full_skip : {"images", "features"}
        Content of the skip connection at full resolution: the images, so that the first convolution already halves
        them, or features from a first convolution at full resolution.
    upsampling : {"nearest", "linear"}
        Linear maps corner voxels onto corner voxels.
    slope : float
        Slope of the LeakyReLU for negative values; 0 is the ReLU.
    initialisation : {"uniform", "he"}
        Distribution of the initial weights: torch's narrow uniform one, or He's normal one, with which features are as
        large in deep layers as in the first.

    Examples
    --------
    >>> from regcore.networks.unet_architecture import Architecture
    >>> architecture = Architecture((16, 32), (32, 32), at_full=(16,))
    >>> architecture.stride, architecture.resolution, architecture.widened(0.5).encoder
    (4, 1, (8, 16))
    """

    encoder: tuple[int, ...]
    decoder: tuple[int, ...]
    at_half: tuple[int, ...] = ()
    at_full: tuple[int, ...] = ()
    downsampling: str = "stride"
    full_skip: str = "images"
    upsampling: str = "nearest"
    slope: float = 0.2
    initialisation: str = "uniform"

    def __post_init__(self):
        if len(self.encoder) != len(self.decoder) or not self.encoder:
            raise ValueError(
                f"encoder and decoder need one convolution or more, and the same number, "
                f"not {self.encoder} and {self.decoder}"
            )
        for name, features in self.features().items():
            if any(n < 1 for n in features):
                raise ValueError(f"{name} must have 1 feature or more in each convolution, not {features}")
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, not {getattr(self, name)!r}")

    def features(self) -> dict[str, tuple[int, ...]]:
        """The four groups of convolutions, by name."""
        return {name: getattr(self, name) for name in ("encoder", "decoder", "at_half", "at_full")}

    def widened(self, width: float) -> "Architecture":
        """Multiply the features of every convolution by ``width``, rounded to the nearest number.

        Raises
        ------
        ValueError
            A convolution would have no features.
        """
        wider: dict[str, Any] = {
            name: tuple(round(width * n) for n in group) for name, group in self.features().items()
        }
        return replace(self, **wider)

    @property
    def stride(self) -> int:
        """Each axis of the images must be a multiple of this."""
        return 2 ** len(self.encoder)

    @property
    def resolution(self) -> int:
        """1 if the output is at full resolution, 2 if it is at half."""
        return 1 if self.at_full else 2

    def skips(self, in_channels: int) -> list[int]:
        """Channels of each skip connection, the finest first."""
        return [in_channels, *self.encoder[:-1]] if self.full_skip == "images" else list(self.encoder)

    def channels(self, in_channels: int) -> list[tuple[int, int]]:
        """Input and output channels of every convolution, in order, for images of ``in_channels`` channels."""
        skips = self.skips(in_channels)
        outputs = [*self.encoder, *self.decoder, *self.at_half, *self.at_full]
        inputs = [in_channels, *outputs[:-1]]
        levels, half = len(self.encoder), len(self.at_half)
        joined = [*[0] * levels, 0, *reversed(skips[1:]), *[0] * half, *(skips[:1] if self.at_full else [])]
        return [(own + skip, out) for own, out, skip in itertools.zip_longest(inputs, outputs, joined, fillvalue=0)]


#: Parameter counts are of the 3-D network for a pair of grey-scale images, including the flow head.
ARCHITECTURES = {
    # TMI 2019, Fig. 3; "VoxelMorph-2" of CVPR 2018 and its repository.  300,547
    "paper": Architecture((16, 32, 32, 32), (32, 32, 32, 32), at_half=(32,), at_full=(16, 16)),
    # "VoxelMorph-1": one convolution fewer at full resolution, and fewer features in the last three.  223,363
    "paper-vm1": Architecture((16, 32, 32, 32), (32, 32, 32, 8), at_half=(8,), at_full=(8,)),
    # The diffeomorphic network of MICCAI 2018, which has a second head for log σ.  265,075, 266,374 with both
    "paper-diff": Architecture((16, 32, 32, 32), (32, 32, 32, 32), at_half=(16,)),
    # The first PyTorch version of the authors' library; "VoxelMorph-2" among TransMorph's baselines.  301,411
    "strided": Architecture((16, 32, 32, 32), (32, 32, 32, 32), at_full=(32, 16, 16)),
    # "VoxelMorph-1" among TransMorph's baselines.  274,387
    "strided-vm1": Architecture((8, 32, 32, 32), (32, 32, 32, 32), at_full=(32, 8, 8)),
    # The authors' library since it uses max pooling.  327,331
    "code": Architecture(
        (16, 32, 32, 32),
        (32, 32, 32, 32),
        at_full=(32, 16, 16),
        downsampling="max-pool",
        full_skip="features",
    ),
    # The same library at half resolution: the network whose weights HyperMorph predicts (IPMI 2021).  313,507
    "half": Architecture(
        (16, 32, 32, 32),
        (32, 32, 32, 32),
        at_half=(32, 16, 16),
        downsampling="max-pool",
        full_skip="features",
    ),
    # The VoxelMorph that TM-SPR is compared with: 16, 32, 64, 96, 128 on the way down from full resolution to 1/16, and
    # 128, 96, 64, 32 on the way up.  2,133,011
    "wide": Architecture((16, 32, 64, 96), (128, 128, 96, 64), at_full=(32,), full_skip="features"),
    # SynthMorph's code (TMI 2022); the paper uses ×4.  1,336,387; 21,270,787 with width 4
    "synthmorph": Architecture((64,) * 4, (64,) * 4, at_half=(64, 64), initialisation="he"),
}


def named_architecture(name: str) -> Architecture:
    if name not in ARCHITECTURES:
        raise ValueError(f"there is no architecture '{name}'{did_you_mean(name, ARCHITECTURES)}")
    return ARCHITECTURES[name]
