"""AutoReg's network of two scales, whose cells are searched (Fan et al., TIP 2023, Section III-B).

Feature cells halve the resolution of each image twice.  Deformation cells take the features of both images at a
quarter and then at half of the resolution, where the moving image's are warped by the result of the first cell.  Each
edge of a cell has one operation, or a mixture of all candidates (Eq. 3): the super-network.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from regcore.networks.architecture import CANDIDATES, CELLS, DEFORMATION, EDGES, FEATURE, OPERATIONS, Architecture
from regcore.networks.unet import FlowHead, convolution
from regcore.spatial import integrate, resample, resample_displacement, warp

SLOPE = 0.2
#: Features of the coarsest feature cell, and of the second and third operation of a deformation cell, relative to the
#: finest: 16 → 32, 48, 32.
COARSE, WIDE, MIDDLE = 2, 3, 2
#: Images are padded to a multiple of this.
STRIDE = 4
SEPARABLE = ("true", "code")
DOWNSAMPLING = ("first", "last")


class CellNetwork(nn.Module):
    """Image pair, moving and fixed → velocities at half and at a quarter of the resolution [1]_.

    The velocity at half resolution is the coarser one, up-sampled, plus the output of the finer deformation cell.

    Parameters
    ----------
    ndim : {2, 3}
        D.
    architecture : Architecture
        The operation on each edge.
    mixed : tuple of str
        Kinds of cells (feature, deformation) whose edges hold mixtures of all candidates, whatever their
        ``architecture``.
    channels : int
        Features of an image at half resolution; at a quarter twice as many.
    separable : {"true", "code"}
        Form of separable convolutions: one kernel for each feature and a mixing of features, or that of the authors'
        code, with a full convolution before them.
    downsampling : {"first", "last"}
        Convolution of a feature cell with stride two: the first (the authors' code; agrees with the paper's memory),
        or the last (the paper's text).
    integration_steps : int
        Squarings between the two scales.
    checkpointing : bool
        Recompute the operations of a mixture in the backward pass, to save memory.

    Attributes
    ----------
    mixtures : nn.ParameterDict
        α: kind of mixed cells → (6, 8), edges × candidates; initially zeros, so that all have the same weight.

    References
    ----------
    .. [1] Fan, Li, Li, Wang, Liu, Luo and Huang, "Automated learning for deformable medical image registration by
       jointly optimizing network architectures and objective functions", IEEE TIP 2023, Section III-B and Eq. 3.

    Examples
    --------
    >>> import torch
    >>> from regcore.networks.architecture import Architecture
    >>> from regcore.networks.cells import CellNetwork
    >>> network = CellNetwork(2, Architecture.uniform("1-Conv"), channels=4)
    >>> tuple(network(torch.zeros(1, 2, 16, 16)).shape)
    (1, 4, 8, 8)
    """

    def __init__(
        self,
        ndim: int,
        architecture: Architecture,
        mixed: tuple[str, ...] = (),
        channels: int = 16,
        separable: str = "true",
        downsampling: str = "first",
        integration_steps: int = 7,
        checkpointing: bool = False,
    ):
        super().__init__()
        for value, known, what in ((separable, SEPARABLE, "separable"), (downsampling, DOWNSAMPLING, "downsampling")):
            if value not in known:
                raise ValueError(f"{what} must be one of {', '.join(known)}, not {value!r}")
        self.architecture, self.integration_steps = architecture, integration_steps
        sizes = {
            (FEATURE, "half"): (1, channels, channels, channels),
            (FEATURE, "quarter"): (channels,) + EDGES * (COARSE * channels,),
            (DEFORMATION, "quarter"): (2 * COARSE * channels, WIDE * channels, MIDDLE * channels, channels),
            (DEFORMATION, "half"): (3 * channels + ndim, WIDE * channels, MIDDLE * channels, channels),
        }

        def cell(kind: str, name: str) -> Cell:
            names = [list(CANDIDATES)] * EDGES if kind in mixed else [[edge] for edge in architecture.cells[kind][name]]
            halving = None if kind == DEFORMATION else {"first": 0, "last": EDGES - 1}[downsampling]
            return Cell(ndim, names, sizes[kind, name], halving, separable, checkpointing)

        def cells(kind: str) -> nn.ModuleDict:
            return nn.ModuleDict({_at(name): cell(kind, name) for name in CELLS[kind]})

        self.moving_features, self.fixed_features = cells(FEATURE), cells(FEATURE)
        self.deformation = cells(DEFORMATION)
        self.head = FlowHead(ndim, channels)
        edges = len(CELLS[FEATURE]) * EDGES
        self.mixtures = nn.ParameterDict({kind: torch.zeros(edges, len(CANDIDATES)) for kind in mixed})

    def weights(self) -> list[nn.Parameter]:
        """ω: all parameters but α."""
        return [value for name, value in self.named_parameters() if not name.startswith("mixtures.")]

    def forward(self, pair: Tensor, path: Architecture | None = None) -> Tensor:
        """Map (B, 2, *space), sizes multiples of 4, to (B, 2 D, *space / 2).

        The first D channels are the velocity at half resolution, in voxels of that grid; the others are the velocity at
        a quarter, in voxels of its own grid, with each voxel repeated.

        Parameters
        ----------
        path : Architecture, optional
            Use only this operation of each mixture.
        """
        moving, fixed = pair.split(1, dim=1)
        moving_half, moving_quarter = self._features(self.moving_features, moving, path)
        fixed_half, fixed_quarter = self._features(self.fixed_features, fixed, path)
        found = self._cell(
            self.deformation, DEFORMATION, "quarter", torch.cat([moving_quarter, fixed_quarter], 1), path
        )
        coarse = self._velocity(found)
        space = moving_half.shape[2:]
        velocity = resample_displacement(coarse, space)
        displacement = resample_displacement(integrate(coarse, self.integration_steps), space)
        warped = warp(moving_half, displacement.to(moving_half.dtype))
        seen = torch.cat([warped, fixed_half, velocity.to(found.dtype), resample(found, space)], 1)
        found = self._cell(self.deformation, DEFORMATION, "half", seen, path)
        fine = velocity + self._velocity(found)
        return torch.cat([fine, F.interpolate(coarse, scale_factor=2, mode="nearest")], 1)

    def _velocity(self, features: Tensor) -> Tensor:
        found = self.head(features)
        return found.to(torch.promote_types(found.dtype, torch.float32))

    def _features(self, cells: nn.ModuleDict, image: Tensor, path: Architecture | None) -> tuple[Tensor, Tensor]:
        half = self._cell(cells, FEATURE, "half", image, path)
        return half, self._cell(cells, FEATURE, "quarter", half, path)

    def _cell(self, cells: nn.ModuleDict, kind: str, name: str, x: Tensor, path: Architecture | None) -> Tensor:
        cell = cells[_at(name)]
        if kind not in self.mixtures:
            return cell(x)
        if path is not None:
            return cell(x, path.cells[kind][name])
        start = EDGES * CELLS[kind].index(name)
        return cell(x, self.mixtures[kind][start : start + EDGES].softmax(1).to(x.dtype))

    def chosen(self) -> Architecture:
        """The architecture with each mixture replaced by its most likely operation."""
        found = self.architecture
        names = list(CANDIDATES)
        for kind, mixture in self.mixtures.items():
            found = found.with_cells(kind, [names[place] for place in mixture.argmax(1).tolist()])
        return found


@dataclass(frozen=True)
class CellDesign:
    """A :class:`CellNetwork`, see there."""

    architecture: Architecture
    mixed: tuple[str, ...]
    channels: int
    separable: str
    downsampling: str
    integration_steps: int
    keeps_checkpoints: bool
    ndim = None
    stride = STRIDE

    def build(self, ndim: int) -> CellNetwork:
        return CellNetwork(
            ndim,
            self.architecture,
            self.mixed,
            channels=self.channels,
            separable=self.separable,
            downsampling=self.downsampling,
            integration_steps=self.integration_steps,
            checkpointing=self.keeps_checkpoints,
        )


def _at(cell: str) -> str:
    """Name of a cell as a submodule; it must not be a method of modules, such as ``half``."""
    return f"at_{cell}"


class Cell(nn.Module):
    """Four nodes in a chain: each is an operation, or a mixture of operations, on the previous node.

    Parameters
    ----------
    ndim : {2, 3}
        D.
    names : list of list of str
        Operations of each edge.
    features : sequence of int
        Features of each node.
    halving : int or None
        The edge with stride two.
    separable : {"true", "code"}
        As for :class:`CellNetwork`.
    checkpointing : bool
        As for :class:`CellNetwork`.

    Examples
    --------
    >>> import torch
    >>> from regcore.networks.cells import Cell
    >>> cell = Cell(2, [["3-Conv"], ["1-Conv"]], (1, 4, 8), halving=0, separable="true", checkpointing=False)
    >>> tuple(cell(torch.zeros(1, 1, 16, 16)).shape)
    (1, 8, 8, 8)
    """

    def __init__(
        self,
        ndim: int,
        names: list[list[str]],
        features: tuple[int, ...],
        halving: int | None,
        separable: str,
        checkpointing: bool,
    ):
        super().__init__()
        self.checkpointing = checkpointing
        self.edges = nn.ModuleList(
            nn.ModuleDict(
                {name: operation(ndim, name, own, out, 2 if edge == halving else 1, separable) for name in candidates}
            )
            for edge, (candidates, own, out) in enumerate(zip(names, features[:-1], features[1:], strict=True))
        )

    def forward(self, x: Tensor, choice: Tensor | tuple[str, ...] | None = None) -> Tensor:
        """Map (B, C, *space) to (B, F, *space), or to half the resolution.

        Parameters
        ----------
        choice : Tensor (edges, candidates), or operations of the edges, or None
            Weights of each mixture, or the only operations to use; None if each edge has one.
        """
        candidates: Any  # a ModuleDict, of which torch tells no types
        for number, candidates in enumerate(self.edges):
            if choice is None:
                (only,) = candidates.values()
                x = only(x)
            elif isinstance(choice, Tensor):
                x = self._mixed(candidates, x, choice[number])
            else:
                x = candidates[choice[number]](x)
        return x

    def _mixed(self, candidates: nn.ModuleDict, x: Tensor, weights: Tensor) -> Any:
        if not (self.checkpointing and torch.is_grad_enabled()):
            return sum(weight * candidate(x) for weight, candidate in zip(weights, candidates.values(), strict=True))

        def weighed(weight: Tensor, candidate: nn.Module) -> Tensor:
            return checkpoint(lambda x, weight: weight * candidate(x), x, weight, use_reentrant=False)

        return sum(weighed(weight, candidate) for weight, candidate in zip(weights, candidates.values(), strict=True))


def operation(ndim: int, name: str, own: int, out: int, stride: int, separable: str) -> nn.Sequential:
    """One of :data:`~regcore.networks.architecture.OPERATIONS`, each followed by LeakyReLU 0.2.

    Parameters
    ----------
    ndim : {2, 3}
        D.
    name : str
        Such as ``3-SConv``.
    own, out : int
        Features before and after.
    stride : int
        1, or 2 to halve the resolution.
    separable : {"true", "code"}
        As for :class:`CellNetwork`.

    Returns
    -------
    nn.Sequential

    Examples
    --------
    >>> import torch
    >>> from regcore.networks.cells import operation
    >>> tuple(operation(2, "3-DConv", 1, 4, stride=2, separable="true")(torch.zeros(1, 1, 16, 16)).shape)
    (1, 4, 8, 8)
    """
    described = OPERATIONS[name]
    layer, kernel, half = convolution(ndim), described.kernel, described.kernel // 2
    if described.kind == "DConv":
        return nn.Sequential(layer(own, out, kernel, stride, 2 * half, dilation=2), nn.LeakyReLU(SLOPE))
    if described.kind == "Conv":
        return nn.Sequential(layer(own, out, kernel, stride, half, bias=False), nn.LeakyReLU(SLOPE))
    if separable == "true":
        apart = layer(own, own, kernel, stride, half, groups=own, bias=False)
        return nn.Sequential(apart, layer(own, out, 1, bias=False), nn.LeakyReLU(SLOPE))
    return nn.Sequential(
        layer(own, own, kernel, stride, half, bias=False),
        nn.LeakyReLU(SLOPE),
        layer(own, own, kernel, 1, half, groups=own, bias=False),
        layer(own, out, 1, bias=False),
        nn.LeakyReLU(SLOPE),
    )
