"""Total information of classes of intensity, and its gradient with respect to affine maps, in Numba.

A point belongs to three classes at most (background and two neighbours), so it adds to nine cells of the joint masses.
A work item is a chunk of points in one pose.  Chunks do not depend on the number of threads, nor does the result.
"""

import numpy as np
import torch
from torch import Tensor

from regcore.kernels.class_information.reference import LEAST, TINY
from regcore.kernels.launch import jit, run

#: Points of a work item.
CHUNK = 2048
#: What is kept of a sample: three values, then the slopes of each along three axes.
KEPT = 12


@jit
def gather(image, z, y, x, kept):
    """Interpolate three channels at a position, and their slopes; zero beyond the image."""
    depth, height, width = image.shape[0], image.shape[1], image.shape[2]
    kept[:] = 0
    # Along an axis of one voxel nothing changes.
    z = 0.0 if depth == 1 else z
    y = 0.0 if height == 1 else y
    x = 0.0 if width == 1 else x
    if not (-1.0 < z < depth and -1.0 < y < height and -1.0 < x < width):  # also NaN
        return
    i, j, k = int(np.floor(z)), int(np.floor(y)), int(np.floor(x))
    a, b, c = z - i, y - j, x - k
    if 0 <= i < depth - 1 and 0 <= j < height - 1 and 0 <= k < width - 1:
        for channel in range(3):
            near_low, near_high = image[i, j, k, channel], image[i, j + 1, k, channel]
            far_low, far_high = image[i + 1, j, k, channel], image[i + 1, j + 1, k, channel]
            d_near_low, d_near_high = (
                image[i, j, k + 1, channel] - near_low,
                image[i, j + 1, k + 1, channel] - near_high,
            )
            d_far_low, d_far_high = (
                image[i + 1, j, k + 1, channel] - far_low,
                image[i + 1, j + 1, k + 1, channel] - far_high,
            )
            near_low, near_high = near_low + c * d_near_low, near_high + c * d_near_high
            far_low, far_high = far_low + c * d_far_low, far_high + c * d_far_high
            d_near, d_far = d_near_low + b * (d_near_high - d_near_low), d_far_low + b * (d_far_high - d_far_low)
            near, far = near_low + b * (near_high - near_low), far_low + b * (far_high - far_low)
            kept[channel] = near + a * (far - near)
            kept[3 + channel] = far - near
            kept[6 + channel] = (1.0 - a) * (near_high - near_low) + a * (far_high - far_low)
            kept[9 + channel] = d_near + a * (d_far - d_near)
        return
    for corner in range(8):
        dz, dy, dx = corner >> 2, corner >> 1 & 1, corner & 1
        if not (0 <= i + dz < depth and 0 <= j + dy < height and 0 <= k + dx < width):
            continue
        wz, wy, wx = a if dz else 1.0 - a, b if dy else 1.0 - b, c if dx else 1.0 - c
        along_z = 0.0 if depth == 1 else (2 * dz - 1) * wy * wx
        along_y = 0.0 if height == 1 else (2 * dy - 1) * wz * wx
        along_x = 0.0 if width == 1 else (2 * dx - 1) * wz * wy
        for channel in range(3):
            value = image[i + dz, j + dy, k + dx, channel]
            kept[channel] += wz * wy * wx * value
            kept[3 + channel] += along_z * value
            kept[6 + channel] += along_y * value
            kept[9 + channel] += along_x * value


@jit
def split(ranked, inside, valid, count):
    """Mass in the background, the lower class, and the masses in it and in the next one."""
    place = ranked / max(np.float64(inside), LEAST) * (count - 1)
    lower = min(max(np.floor(place), 0.0), count - 2.0)
    part = min(max(place - lower, 0.0), 1.0)
    return max(np.float64(valid - inside), 0.0), np.int64(lower), inside * (1.0 - part), inside * part


@jit
def join(start, stop, maps, image, places, fixed, count, kept, joint):
    """Joint masses of each chunk, ``joint`` (items, count + 1, count + 1); samples into ``kept`` (B, n, KEPT)."""
    points = places.shape[0]
    chunks = (points + CHUNK - 1) // CHUNK
    for item in range(start, stop):
        pose = item // chunks
        m = maps[pose]
        own = joint[item]
        own[:] = 0
        for n in range(item % chunks * CHUNK, min(item % chunks * CHUNK + CHUNK, points)):
            p, q, r = places[n, 0], places[n, 1], places[n, 2]
            z = m[0, 0] * p + m[0, 1] * q + m[0, 2] * r + m[0, 3]
            y = m[1, 0] * p + m[1, 1] * q + m[1, 2] * r + m[1, 3]
            x = m[2, 0] * p + m[2, 1] * q + m[2, 2] * r + m[2, 3]
            here = kept[pose, n]
            gather(image, z, y, x, here)
            outside, lower, low, high = split(here[0], here[1], here[2], count)
            f_outside, f_lower, f_low, f_high = split(fixed[0, n], fixed[1, n], fixed[2, n], count)
            own[0, 0] += f_outside * outside
            own[0, lower + 1] += f_outside * low
            own[0, lower + 2] += f_outside * high
            own[f_lower + 1, 0] += f_low * outside
            own[f_lower + 1, lower + 1] += f_low * low
            own[f_lower + 1, lower + 2] += f_low * high
            own[f_lower + 2, 0] += f_high * outside
            own[f_lower + 2, lower + 1] += f_high * low
            own[f_lower + 2, lower + 2] += f_high * high


@jit
def pull(start, stop, places, fixed, count, kept, worth, gradient):
    """Gradient of each chunk, ``gradient`` (items, 3, 4), from what a joint mass is ``worth`` (B, count + 1, …)."""
    points = places.shape[0]
    chunks = (points + CHUNK - 1) // CHUNK
    steps = count - 1.0
    for item in range(start, stop):
        w = worth[item // chunks]
        own = gradient[item]
        own[:] = 0
        for n in range(item % chunks * CHUNK, min(item % chunks * CHUNK + CHUNK, points)):
            here = kept[item // chunks, n]
            ranked, inside = np.float64(here[0]), np.float64(here[1])
            f_outside, k, f_low, f_high = split(fixed[0, n], fixed[1, n], fixed[2, n], count)
            known = max(inside, LEAST)
            place = ranked / known * steps
            lower = min(max(np.floor(place), 0.0), steps - 1.0)
            part = place - lower
            c = np.int64(lower) + 1
            background = f_outside * w[0, 0] + f_low * w[k + 1, 0] + f_high * w[k + 2, 0]
            low = f_outside * w[0, c] + f_low * w[k + 1, c] + f_high * w[k + 2, c]
            high = f_outside * w[0, c + 1] + f_low * w[k + 1, c + 1] + f_high * w[k + 2, c + 1]
            by_rank = inside * (high - low) * steps if 0.0 < part < 1.0 else 0.0
            part = min(max(part, 0.0), 1.0)
            by_inside = low + part * (high - low) - background - by_rank * ranked / (known * known)
            by_rank = by_rank / known
            for axis in range(3):
                slope = here[3 + 3 * axis : 6 + 3 * axis]
                along = by_rank * slope[0] + by_inside * slope[1] + background * slope[2]
                own[axis, 0] += along * places[n, 0]
                own[axis, 1] += along * places[n, 1]
                own[axis, 2] += along * places[n, 2]
                own[axis, 3] += along


def information(maps: Tensor, image: Tensor, places: Tensor, fixed: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Information (B,) and its gradient with respect to ``maps``."""
    ndim = places.shape[1]
    if ndim == 2:  # a volume of one slice
        image, places = image[None], torch.nn.functional.pad(places, (1, 0))
        maps = torch.nn.functional.pad(maps, (1, 0, 1, 0))
    poses, points = len(maps), len(places)
    chunks = -(-points // CHUNK)
    kept = maps.new_empty(poses, points, KEPT)
    joint = torch.empty(poses * chunks, count + 1, count + 1, dtype=torch.float64)
    arrays = [tensor.contiguous() for tensor in (maps, image, places, fixed)]
    run(join, poses * chunks, poses * points, *arrays, count, kept, joint)
    joint = joint.view(poses, chunks, count + 1, count + 1).sum(1)
    total, rows, columns = joint.sum((1, 2), keepdim=True), joint.sum(2, keepdim=True), joint.sum(1, keepdim=True)
    worth = (joint + TINY).log() + (total + TINY).log() - (rows + TINY).log() - (columns + TINY).log()
    gradient = torch.empty(poses * chunks, 3, 4, dtype=torch.float64)
    run(pull, poses * chunks, poses * points, *arrays[2:], count, kept, worth.to(maps.dtype), gradient)
    gradient = gradient.view(poses, chunks, 3, 4).sum(1)[:, 3 - ndim :, 3 - ndim :]
    return (joint * worth).sum((1, 2)).to(maps.dtype), gradient.to(maps.dtype)
