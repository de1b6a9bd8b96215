"""Reading a pickle of numpy arrays without running anything that it asks for.

A pickle can run any code when it is read. Here every name in it is looked up in a short table of stand-ins, which
remember what an array was made of; numpy itself builds it from checked numbers at the end. Containers, numbers, text
and bytes come as they are; everything else is refused.
"""

from __future__ import annotations

import pickle
import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt


MAGIC = b"\x80"
MOST_STEPS = 200_000
"""Steps of a pickle; a TAP-Vid file has a few for each frame at most."""
NUMBERS = re.compile(r"[biuf][1248]")


@dataclass
class _Dtype:
    """What a pickle says of an array's numbers."""

    spec: str
    order: str = "|"

    def __setstate__(self, state: Any) -> None:
        self.order = state[1]

    def made(self) -> np.dtype[Any]:
        """numpy's own; ValueError for anything but numbers."""
        spec = self.spec.lstrip("<>=|") if isinstance(self.spec, str) else ""
        if not NUMBERS.fullmatch(spec) or self.order not in ("<", ">", "=", "|"):
            raise ValueError(f"it has an array of {str(self.spec)[:20]!r}, not of numbers")
        return np.dtype(self.order.replace("|", "=") + spec)


class StoredArray:
    """What an array was made of; nothing is built before `array`."""

    def __init__(self) -> None:
        self.state: tuple[Any, ...] = ()

    def __setstate__(self, state: Any) -> None:
        self.state = tuple(state)[1:5]

    def array(self) -> npt.NDArray[Any]:
        """The array of numbers.

        Raises:
            ValueError: if shape, kind and bytes do not fit together.
        """
        if len(self.state) != 4:
            raise ValueError("it has an array without content")
        shape, dtype, fortran, raw = self.state
        if not isinstance(dtype, _Dtype) or not isinstance(raw, bytes | bytearray):
            raise ValueError("it has an array of objects, not of numbers")
        made = dtype.made()
        good = isinstance(shape, tuple) and all(isinstance(n, int) and n >= 0 for n in shape) and len(shape) <= 8
        if not good or prod(shape) * made.itemsize != len(raw):
            raise ValueError(f"it has an array of shape {str(shape)[:40]} whose bytes do not fit it")
        return np.frombuffer(raw, made).reshape(shape, order="F" if fortran else "C")


def load_pickle(file: BinaryIO) -> Any:
    """What a pickle holds, its arrays as `StoredArray`.

    Raises:
        ValueError: if it is damaged, or asks for anything but arrays.
    """
    try:
        _check_steps(file)
        return _Unpickler(file).load()
    except Exception as error:  # a damaged pickle raises whatever its steps stumble over
        raise ValueError(f"it is no pickle of arrays: {str(error)[:120]}") from error


def _check_steps(file: BinaryIO) -> None:
    """Refuse what would take very long, or a memo table of any size; leaves the file where it was."""
    start = file.tell()
    for count, (step, argument, _) in enumerate(pickletools.genops(file), start=1):
        if count > MOST_STEPS:
            raise ValueError(f"it has more than {MOST_STEPS} steps")
        if step.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > count:
            raise ValueError("it numbers what it remembers beyond its own length")
    file.seek(start)


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        rebuilt, view = (lambda *_: StoredArray()), _viewed
        self._makers: dict[tuple[str, str], Callable[..., Any] | object] = {
            ("numpy", "ndarray"): object(),  # only ever an argument
            ("numpy", "dtype"): lambda spec, *_: _Dtype(spec),
            ("_codecs", "encode"): lambda text, coding: _latin1(text, coding),
            ("__builtin__", "bytes"): lambda: b"",  # how old protocols write none
        }
        for core in ("core", "_core"):
            self._makers[(f"numpy.{core}.multiarray", "_reconstruct")] = rebuilt
            self._makers[(f"numpy.{core}.numeric", "_frombuffer")] = lambda *parts: view(*parts)

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in of this name; made anew for each pickle, so that none can leave anything in it."""
        if (module, name) not in self._makers:
            raise pickle.UnpicklingError(f"it asks for {module[:40]}.{name[:40]}, which is no numpy array")
        return self._makers[(module, name)]


def _viewed(raw: Any, dtype: Any, shape: Any, order: Any) -> StoredArray:
    """An array as protocol 5 stores it."""
    made = StoredArray()
    made.state = (shape, dtype, order == "F", raw)
    return made


def _latin1(text: str, coding: str) -> bytes:
    """How old protocols write the bytes of an array."""
    if coding != "latin1":
        raise pickle.UnpicklingError(f"it asks for the codec {coding[:40]}")
    return text.encode("latin1")
