"""What a scanner does to the intensities of the moving image: gain, contrast, bias field, noise, background."""

import numpy as np
from scipy.ndimage import gaussian_filter, zoom

from capture.kinds import Kind
from regcore.images.volume import Volume

#: Gain of every moving image.
GAIN = (0.3, 3.0)
#: The bias field has this many independent values along each axis.
BIAS_POINTS = 4
#: Relative to the 99th percentile: darker is air, and stays dark when the contrast is inverted.
DARK = 0.05


def scanned(image: Volume, kind: Kind, generator: np.random.Generator) -> Volume:
    """Change the intensities of an image as ``kind`` says."""
    data = image.data - image.data.min()
    bright = np.percentile(data[data > DARK * data.max()], 99)
    data = data / bright
    if kind.inverted:
        data = np.where(gaussian_filter(data, 1.0) > DARK, np.clip(1.15 - data, DARK, None), 0)
    if kind.bias:
        data = data * np.exp(kind.bias * smooth_field(data.shape, generator))
    if kind.noise:
        noise = generator.standard_normal((2, *data.shape)) * kind.noise
        data = np.hypot(data + noise[0], noise[1])
    gain = bright * np.exp(generator.uniform(*np.log(GAIN)))
    return image.with_data((gain * (data + kind.air)).astype(np.float32))


def smooth_field(shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    """A smooth random field with mean 0 and SD 1."""
    coarse = generator.standard_normal([BIAS_POINTS] * len(shape))
    field = zoom(coarse, np.array(shape) / BIAS_POINTS, order=3, mode="nearest", grid_mode=True)
    return (field - field.mean()) / field.std()
