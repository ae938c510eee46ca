"""Which operators run as their Triton kernel on a GPU, and from which size on.

A kernel is used where it was measured to be faster than the plain-torch reference and to agree with it, on a GPU and
not in Triton's interpreter alone: ``benchmarks/gpu.py`` measures both, ``docs/results/gpu`` holds what it found, and a
test holds these tables to it.  On a CPU every Numba kernel is faster than its reference at every size
(``docs/results/operators.md``), and none is listed here.
"""

#: Entries of the largest argument (a displacement has three for each voxel) from which on the kernel is used.  All were
#: faster at 160×192×224, by factors of 11 to 350.  Smaller sizes were not timed: there launches count, of which a
#: kernel makes a few where the reference makes dozens.
FEWEST_ENTRIES = {
    "warp": 1,
    "integrate": 1,
    "diffusion": 1,
    "smoothing": 1,
    "lncc": 1,
    "label_places": 1,
    "label_overlaps": 1,
    "jacobian_determinant": 1,
    "digital_folds": 1,
    "joint_histogram": 1,
}

#: Kernels that are there and are not used, and why.
NOT_USED = {
    "weighted_diffusion": "the gradient of its weights has not been tried on a GPU yet",
    "mind_ssc": "its gradient was wrong on a GPU, was mended, and has not been tried again",
    "philox_normal": "it has not been tried on a GPU yet",
    "shading": "it has not been tried on a GPU yet",
    "sample_convolution": "it has not been tried on a GPU yet",
}

#: Compute capability below which nothing was measured or compiled.
OLDEST_GPU = (8, 0)
