"""From what a package holds to arrays: no code of the package is run, and none in its files."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Mapping
from typing import Any, final

import numpy as np
import torch
from matplotlib.image import imread

from parties.exchange import Array, FedpactError

SIDE, CELL = 32, 34  # pixels a side of an emoji, and with its margin
CATEGORIES = (
    "Activities",
    "Animals & Nature",
    "Flags",
    "Food & Drink",
    "Objects",
    "People & Body",
    "Smileys & Emotion",
    "Symbols",
    "Travel & Places",
)


def torch_file(members: Mapping[str, bytes]) -> dict[str, Array]:
    """A state dict of tensors; torch refuses a file that would do anything but hold them."""
    (content,) = members.values()
    try:
        found = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        return {str(k): v.numpy() for k, v in found.items()}
    except (pickle.UnpicklingError, RuntimeError, EOFError, AttributeError) as fault:
        raise FedpactError(
            f"{next(iter(members))} is refused ({str(fault).splitlines()[0]}); legal is a state "
            "dict of tensors. Do not load it in another way."
        ) from fault


def numpy_pickle(members: Mapping[str, bytes]) -> dict[str, Array]:
    """A pickled {layer: [kernel (height, width, in, out), bias (out,)]}, named as torch has them.

    >>> kernel, bias = np.zeros((3, 3, 3, 8)), np.zeros(8)
    >>> found = numpy_pickle({"w": pickle.dumps({"fire2/expand3x3": [kernel, bias]}, 3)})
    >>> {name: values.shape for name, values in found.items()}
    {'fire2.expand3x3.weight': (8, 3, 3, 3), 'fire2.expand3x3.bias': (8,)}
    """
    ((name, content),) = members.items()
    try:
        layers = _ArraysOnly(io.BytesIO(content)).load()
        found = {}
        for layer, (kernel, bias) in layers.items():
            key = layer.replace("/", ".")
            turned = kernel.values.astype(np.float32).transpose(3, 2, 0, 1)
            found[f"{key}.weight"] = np.ascontiguousarray(turned)
            found[f"{key}.bias"] = bias.values.astype(np.float32)
    except FedpactError:
        raise
    except Exception as fault:  # whatever a damaged pickle makes of the machine that reads it
        raise FedpactError(
            f"{name} is refused ({fault}); legal is a pickle of a kernel and a bias a layer. Do "
            "not load it in another way."
        ) from fault
    return found


@final
class _Numbers:
    """What a pickle may say of an array's type: floats of 4 or 8 bytes, little-endian."""

    def __init__(self, code: object, *_: object) -> None:
        if code not in ("f4", "f8"):
            raise pickle.UnpicklingError(f"numbers of type {code!r} are not expected")
        self.code = f"<{code}"

    def __setstate__(self, state: tuple[object, ...]) -> None:
        if state != (3, "<", None, None, None, -1, -1, 0):
            raise pickle.UnpicklingError("the type of an array is not that of plain numbers")


@final
class _Array:
    """What a pickle may say of an array: shape, type, order and bytes. numpy's own code, which
    believes all of it, is not asked."""

    values: Array | None = None

    def __setstate__(self, state: tuple[int, tuple[int, ...], _Numbers, bool, bytes]) -> None:
        _, shape, numbers, by_columns, content = state
        order: Any = "F" if by_columns else "C"
        self.values = np.frombuffer(content, numbers.code).reshape(shape, order=order)


def _empty(kind: object, shape: object, code: object) -> _Array:
    """How numpy pickles an array: as an empty one, which is then given its state."""
    if kind is not _NDARRAY or shape != (0,) or code != b"b":
        raise pickle.UnpicklingError("an array must be pickled as numpy pickles one")
    return _Array()


_NDARRAY = "numpy.ndarray, which may be named but not called"
_ADMITTED: Mapping[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _empty,
    ("numpy._core.multiarray", "_reconstruct"): _empty,
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _Numbers,
}


@final
class _ArraysOnly(pickle.Unpickler):
    """Builds containers, texts, numbers and numpy arrays of floats, and calls nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise FedpactError(
                f"A pickle asks for {module}.{name}; legal are numpy arrays only. It may be an "
                "attack: do not load it in another way."
            ) from None


def sheet(members: Mapping[str, bytes]) -> dict[str, Array]:
    """A vendor's emoji, cut out of a sheet and laid on white, in the order of their code points.

    Args:
        members: emoji.json, and .../img/VENDOR/sheets/32.png.

    Returns:
        `pixels` (n, 32, 32, 3) from 0 to 255, `labels` (n,) places in `CATEGORIES`, and `points`
        (n, bytes), the code points as text, padded with zeros. Skin tones alone are left out.
    """
    (described,) = (v for k, v in members.items() if k.endswith(".json"))
    ((place, picture),) = ((k, v) for k, v in members.items() if k.endswith(".png"))
    vendor = place.split("/")[-3]
    try:
        image = imread(io.BytesIO(picture), format="png")
        rows = sorted(
            (row["unified"], CATEGORIES.index(row["category"]), row["sheet_y"], row["sheet_x"])
            for row in json.loads(described)
            if row[f"has_img_{vendor}"] and row["category"] in CATEGORIES
        )
        cut = [
            image[y * CELL + 1 : y * CELL + 1 + SIDE, x * CELL + 1 : x * CELL + 1 + SIDE]
            for _, _, y, x in rows
        ]
        drawn = np.stack(cut)
    except (ValueError, KeyError, OSError, SyntaxError) as fault:
        raise FedpactError(
            f"{place} cannot be cut into emoji ({fault}); legal is a sheet with a description of "
            "its places. Fetch it again."
        ) from fault
    inked = drawn[..., :3] * drawn[..., 3:] + 1 - drawn[..., 3:]
    points = np.array([point.encode() for point, *_ in rows])
    return {
        "pixels": np.rint(255 * inked).astype(np.uint8),
        "labels": np.array([label for _, label, *_ in rows], np.int64),
        "points": points.view(np.uint8).reshape(len(points), -1),
    }
