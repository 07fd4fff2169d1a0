"""sRGB to CIELAB (D65), in planar rows padded for SIMD."""

from __future__ import annotations

import numpy as np

from patchmill.kernels.common.jit import jit

BLOCK = 16  # pixels per SIMD block; rows are padded to a multiple

_CODES = np.arange(256) / 255
LINEAR = np.where(_CODES <= 0.04045, _CODES / 12.92, ((_CODES + 0.055) / 1.055) ** 2.4).astype(
    np.float32
)
# Linear sRGB to X, Y and Z, each divided by that of the white point.
TO_XYZ = np.array(
    [
        [0.4124564 / 0.95047, 0.3575761 / 0.95047, 0.1804375 / 0.95047],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339 / 1.08883, 0.1191920 / 1.08883, 0.9503041 / 1.08883],
    ],
    np.float32,
)
KNEE = np.float32(216 / 24389)


@jit
def padded_width(width):
    return (width + BLOCK - 1) // BLOCK * BLOCK


@jit
def rgb_to_lab(image):
    """uint8 [height, width, 3] RGB to float32 [height, 3, padded width]: L, a and b of each row.

    The padding is left uninitialised.
    """
    height, width = image.shape[:2]
    lab = np.empty((height, 3, padded_width(width)), np.float32)
    linear = np.empty((3, width), np.float32)
    for y in range(height):
        row, red, green, blue = image[y], linear[0], linear[1], linear[2]
        for x in range(width):
            red[x] = LINEAR[row[x, 0]]
            green[x] = LINEAR[row[x, 1]]
            blue[x] = LINEAR[row[x, 2]]
        for i in range(3):
            linear_to_xyz(
                red, green, blue, TO_XYZ[i, 0], TO_XYZ[i, 1], TO_XYZ[i, 2], lab[y, i, :width]
            )
        xyz_to_lab(lab[y, 0, :width], lab[y, 1, :width], lab[y, 2, :width])
    return lab


@jit
def linear_to_xyz(red, green, blue, weight_red, weight_green, weight_blue, out):
    for x in range(len(out)):
        out[x] = lab_f(weight_red * red[x] + weight_green * green[x] + weight_blue * blue[x])


@jit
def xyz_to_lab(fx, fy, fz):
    """f(X), f(Y), f(Z) to L, a and b, in place."""
    for x in range(len(fx)):
        light = np.float32(116) * fy[x] - np.float32(16)
        a = np.float32(500) * (fx[x] - fy[x])
        fz[x] = np.float32(200) * (fy[x] - fz[x])
        fx[x], fy[x] = light, a


@jit
def lab_pixel(red, green, blue):
    """L, a and b of one pixel from linear red, green and blue, 0 to 1."""
    x = lab_f(TO_XYZ[0, 0] * red + TO_XYZ[0, 1] * green + TO_XYZ[0, 2] * blue)
    y = lab_f(TO_XYZ[1, 0] * red + TO_XYZ[1, 1] * green + TO_XYZ[1, 2] * blue)
    z = lab_f(TO_XYZ[2, 0] * red + TO_XYZ[2, 1] * green + TO_XYZ[2, 2] * blue)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


@jit
def lab_f(t):
    """CIELAB's f(t): cube root by three Halley iterations, exact in float32; linear near 0."""
    root = np.float32(0.3) + np.float32(0.75) * t
    for _ in range(3):
        cube = root * root * root
        root = root * (cube + t + t) / (cube + cube + t)
    line = np.float32(841 / 108) * t + np.float32(4 / 29)
    return root if t > KNEE else line
