"""Label maps as bytes: runs of equal labels, written as numbers of seven bits a byte.

A map is read row by row into pairs (label, length of its run). Each number is a little-endian base-128 varint: seven
bits a byte, the eighth set where more follow. `page/decode.js` is the other reader.
"""

import numpy as np

MOST_BYTES = 5  # of one number: up to 2**35


def encode_runs(labels: np.ndarray) -> bytes:
    """in: non-negative integers of any shape; out: runs of the flattened map, b"" for an empty one."""
    flat = labels.reshape(-1)
    if not len(flat):
        return b""
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    lengths = np.diff(starts, append=len(flat))
    return _varints(np.stack([flat[starts].astype(np.int64), lengths], axis=1).reshape(-1))


def decode_runs(runs: bytes, shape: tuple[int, ...]) -> np.ndarray:
    """The int64 map of `shape` that `encode_runs` was given."""
    numbers, value, shift = [], 0, 0
    for byte in runs:
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            numbers.append(value)
            value = shift = 0
    return np.repeat(np.array(numbers[::2], np.int64), numbers[1::2]).reshape(shape)


def _varints(numbers: np.ndarray) -> bytes:
    places = np.arange(MOST_BYTES)
    groups = (numbers[:, None] >> (7 * places)) & 127
    lengths = 1 + (numbers[:, None] >= 1 << (7 * places[1:])).sum(1)
    groups |= (places < lengths[:, None] - 1) << 7
    return groups[places < lengths[:, None]].astype(np.uint8).tobytes()
