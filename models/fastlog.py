"""Natural logarithms of whole arrays, to 2e-5: eight or sixteen at a time where `math.log` takes one.

Exponent bits plus a polynomial in the mantissa. Features need no more digits, and they need thousands of logarithms a list.
"""

from __future__ import annotations

import numba as nb
import numpy as np

LN2 = np.float32(0.6931471805599453)
#: log2(m) for m in [1, 2), least squares, both ends pinned: no step where the exponent changes.
POLYNOMIAL = (-2.7992666, 5.0855044, -3.5390362, 1.6210332, -0.41247808, 0.044243324)


@nb.njit(cache=True, nogil=True)
def log_all(values: np.ndarray) -> None:
    """Replace positive normal float32 numbers (n,) by their logarithms."""
    bits = values.view(np.int32)
    exponents = np.empty(values.shape[0], np.float32)
    for k in range(values.shape[0]):
        exponents[k] = np.float32((bits[k] >> np.int32(23)) - np.int32(127))
        bits[k] = (bits[k] & np.int32(0x7FFFFF)) | np.int32(0x3F800000)
    for k in range(values.shape[0]):
        m = values[k]
        log2 = np.float32(POLYNOMIAL[5])
        log2 = log2 * m + np.float32(POLYNOMIAL[4])
        log2 = log2 * m + np.float32(POLYNOMIAL[3])
        log2 = log2 * m + np.float32(POLYNOMIAL[2])
        log2 = log2 * m + np.float32(POLYNOMIAL[1])
        log2 = log2 * m + np.float32(POLYNOMIAL[0])
        values[k] = (exponents[k] + log2) * LN2
