"""Shared by all Triton kernels: blocks of voxels, their place in the volume, and the type of arithmetic."""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

#: Rows, and voxels along a row, of a program for one plane, by number of axes.
BLOCK = {3: (8, 32), 2: (1, 256)}
#: Planes, rows, and voxels along a row, of a program that gathers from displaced voxels.  One voxel per thread, so that
#: the threads of a warp gather from neighbouring cells; several planes, because starting a program also takes time.
GATHER = {3: (4, 1, 128), 2: (4, 1, 128)}
#: The same for a program that reads the neighbours of each voxel, with a few voxels per thread.
TILE = {3: (8, 4, 64), 2: (8, 1, 256)}
if triton.knobs.runtime.interpret:  # there, programs run one after the other, and their size does not matter
    GATHER = {3: (8, 8, 32), 2: (8, 1, 256)}


class Volume(NamedTuple):
    """Sizes of a tensor (B, C, *space) as the kernels see it."""

    batch: int
    channels: int
    depth: int
    height: int
    width: int

    @property
    def space(self) -> tuple[int, int, int]:
        return self.depth, self.height, self.width

    @property
    def axes(self) -> int:
        return 3 if self.height > 1 else 2

    @property
    def block(self) -> dict[str, int]:
        """Shape of a program's block in one plane, as constants of kernels."""
        return dict(zip(("BLOCK_Y", "BLOCK_X"), BLOCK[self.axes], strict=True))

    @property
    def grid(self) -> tuple[int, int, int]:
        """Programs: blocks of a plane, planes, elements of the batch; see :func:`where_am_i`."""
        return self._programs(1, *BLOCK[self.axes])

    @property
    def gather(self) -> dict[str, int]:
        """Shape of the block of a gathering program, planes first."""
        return dict(zip(("PLANES", "BLOCK_Y", "BLOCK_X"), GATHER[self.axes], strict=True))

    @property
    def gathers(self) -> tuple[int, int, int]:
        """Programs that gather: blocks of a plane, groups of planes, elements of the batch."""
        return self._programs(*GATHER[self.axes])

    @property
    def tile(self) -> dict[str, int]:
        """Shape of the block of a program that reads neighbours, planes first."""
        return dict(zip(("PLANES", "BLOCK_Y", "BLOCK_X"), TILE[self.axes], strict=True))

    @property
    def tiles(self) -> tuple[int, int, int]:
        """Programs that read neighbours, like :attr:`gathers`."""
        return self._programs(*TILE[self.axes])

    def _programs(self, planes: int, rows: int, voxels: int) -> tuple[int, int, int]:
        blocks = triton.cdiv(self.height, rows) * triton.cdiv(self.width, voxels)
        return blocks, triton.cdiv(self.depth, planes), self.batch


def volume(tensor: Tensor) -> Volume:
    """Sizes of (B, C, Z, Y, X), or of (B, C, H, W) as (B, C, H, 1, W)."""
    batch, channels, *space = tensor.shape
    depth, height, width = space if len(space) == 3 else (space[0], 1, space[1])
    return Volume(batch, channels, depth, height, width)


def arithmetic(tensor: Tensor) -> tl.dtype:
    """The type in which values of ``tensor`` are computed."""
    return tl.float64 if tensor.dtype == torch.float64 else tl.float32


@triton.jit
def where_am_i(height, width, BLOCK_Y: tl.constexpr, BLOCK_X: tl.constexpr):
    """Batch element, (group of) planes, rows (BLOCK_Y, 1), columns (1, BLOCK_X), and which voxels of a plane exist."""
    across = tl.cdiv(width, BLOCK_X)
    block = tl.program_id(0)
    y = (block // across) * BLOCK_Y + tl.arange(0, BLOCK_Y)[:, None]
    x = (block % across) * BLOCK_X + tl.arange(0, BLOCK_X)[None, :]
    return tl.program_id(2), tl.program_id(1), y, x, (y < height) & (x < width)
