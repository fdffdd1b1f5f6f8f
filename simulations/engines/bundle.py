"""A value with many small arrays as one buffer: what a framework moves, it moves one by one."""

from __future__ import annotations

import copyreg
import io
import pickle
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from parties.exchange import Array

LARGE = 1 << 16  # bytes; a larger array stays by itself, and is not copied once more
GRAIN = 64  # bytes: arrays begin where processors read them at once


@final
class _Together:
    """Stands for the buffer of all small arrays while a value is pickled."""


@final
@dataclass(frozen=True)
class Bundle:
    """A pickled value, with its arrays beside it.

    Args:
        text: the value without them.
        small: those of fewer than `LARGE` bytes, (bytes,) uint8.
        others: the buffers that `text` asks for, in its order, (bytes,) uint8 each; None: `small`.
    """

    text: bytes
    small: Array
    others: tuple[Array | None, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of all of it."""
        return (
            len(self.text) + self.small.nbytes + sum(a.nbytes for a in self.others if a is not None)
        )

    @classmethod
    def of(cls, value: Any) -> Bundle:
        """Bundle a value."""
        together, stand_in = _Together(), pickle.PickleBuffer(b"")
        parts, end = list[bytes](), 0
        others = list[Array | None]()

        def take(array: Array) -> Any:
            nonlocal end
            if array.nbytes >= LARGE or array.dtype.hasobject:
                return array.__reduce_ex__(5)
            content, begin = array.tobytes(), end
            parts.append(content)
            end += len(content)
            if spare := -end % GRAIN:
                parts.append(bytes(spare))
                end += spare
            return np.ndarray, (array.shape, array.dtype, together, begin)

        def keep(buffer: pickle.PickleBuffer) -> None:
            others.append(None if buffer is stand_in else np.frombuffer(buffer.raw(), np.uint8))

        text = io.BytesIO()
        pickler = pickle.Pickler(text, protocol=5, buffer_callback=keep)
        pickler.dispatch_table = {
            **copyreg.dispatch_table,
            np.ndarray: take,
            _Together: lambda _: (memoryview, (stand_in,)),
        }
        pickler.dump(value)
        return cls(text.getvalue(), np.frombuffer(b"".join(parts), np.uint8), tuple(others))

    def open(self) -> Any:
        """The value again; its arrays are views of the buffers, and cannot be written to."""
        buffers = [(self.small if one is None else one).data.toreadonly() for one in self.others]
        return pickle.loads(self.text, buffers=buffers)  # noqa: S301 - of Ray's own processes
