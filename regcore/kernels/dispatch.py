"""From which size on each operator runs as its Triton kernel on a GPU.

Measured: ``benchmarks/gpu.py`` times kernel and reference side by side at several sizes, forward and backward, and
writes ``docs/results/gpu/dispatch.csv``; a test holds this table to that file.  On a CPU every Numba kernel is faster
than its reference at every size (``docs/results/operators.md``), and none is listed here.
"""

#: Entries of the largest argument (a displacement has three for each voxel) from which on the kernel is used.
FEWEST_ENTRIES = {
    "warp": 1,
    "integrate": 1,
    "diffusion": 1,
    "weighted_diffusion": 1,
    "smoothing": 1,
    "lncc": 1,
    "label_places": 1,
    "label_overlaps": 1,
    "jacobian_determinant": 1,
    "digital_folds": 1,
    "mind_ssc": 1,
    "joint_histogram": 1,
    "philox_normal": 1,
    "sample_convolution": 1,
}

#: Compute capability below which nothing was measured or compiled.
OLDEST_GPU = (8, 0)
