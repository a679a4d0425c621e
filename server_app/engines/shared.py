"""Messages between processes of one machine: large data lies in shared memory, the rest in a pipe.

Each end of a pipe owns memory that it writes and the other end reads. The file behind it has no
name, so nothing is left behind however a process ends.
"""

from __future__ import annotations

import copyreg
import io
import mmap
import os
import pickle
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from typing import Any

import numpy as np
from flwr.app import Array

from task.arrays import serialized

SMALL = 1 << 14
"""Data of fewer bytes travels in the pipe."""
_ALIGN = 64


@dataclass(frozen=True)
class Parcel:
    """A pickled object, and where in the sender's memory its large data lies."""

    pickled: bytes
    spans: tuple[tuple[int, int], ...]


class Outbox:
    """Memory that this process writes."""

    def __init__(self) -> None:
        self._file: int | None = None
        self._memory: mmap.mmap | None = None
        self.size = 0
        self.version = 0

    def pack(self, objects: Sequence[Any]) -> list[Parcel]:
        """Write the large data of `objects`, what several of them share once.

        What was packed before must not be needed any more.
        """
        places: dict[tuple[int, int], int] = {}
        views: list[memoryview] = []
        end = 0
        parcels = []
        for item in objects:
            pickled, found = _pickle(item)
            spans = []
            for view in found:
                key = (_address(view), view.nbytes)
                if key not in places:
                    places[key] = end
                    views.append(view)
                    end += -(-view.nbytes // _ALIGN) * _ALIGN
                spans.append((places[key], view.nbytes))
            parcels.append(Parcel(pickled, tuple(spans)))
        self._reserve(end)
        for view, start in zip(views, places.values(), strict=True):
            assert self._memory is not None
            self._memory[start : start + view.nbytes] = view
        return parcels

    @property
    def file(self) -> int:
        """The memory's file descriptor."""
        assert self._file is not None
        return self._file

    def close(self) -> None:
        """Give the memory back; whoever mapped it keeps it until they let go."""
        if self._file is not None:
            os.close(self._file)
        self._file = self._memory = None

    def _reserve(self, size: int) -> None:
        if size <= self.size:
            return
        self.close()
        self.size = size
        self.version += 1
        self._file = _nameless_file()
        os.ftruncate(self._file, size)
        self._memory = mmap.mmap(self._file, size)


class Port:
    """One end of a pipe.

    Parameters
    ----------
    pipe : Connection
        A duplex one.
    outbox : Outbox
        Where this end writes; several ports may share one.
    """

    def __init__(self, pipe: Connection, outbox: Outbox) -> None:
        self.pipe = pipe
        self._outbox = outbox
        self._version = 0
        self._theirs: mmap.mmap | None = None

    def send(self, parcel: Parcel) -> None:
        """Send what `outbox` packed."""
        if self._version != self._outbox.version:
            self._version = self._outbox.version
            self.pipe.send(self._outbox.size)
            send_handle(self.pipe, self._outbox.file, None)
        self.pipe.send(parcel)

    def receive(self) -> Any:
        """Return the next object; its large data stays valid until its sender packs again.

        Raises
        ------
        EOFError, OSError
            If the other end is gone.
        """
        item = self.pipe.recv()
        while isinstance(item, int):
            file = recv_handle(self.pipe)
            self._theirs = mmap.mmap(file, item, prot=mmap.PROT_READ)
            os.close(file)
            item = self.pipe.recv()
        assert isinstance(item, Parcel)
        views = []
        for start, size in item.spans:
            assert self._theirs is not None
            views.append(memoryview(self._theirs)[start : start + size])
        return pickle.loads(item.pickled, buffers=views)


def _pickle(item: Any) -> tuple[bytes, list[memoryview]]:
    found: list[memoryview] = []

    def take(buffer: pickle.PickleBuffer) -> bool:
        view = buffer.raw()
        if view.nbytes < SMALL:
            return True
        found.append(view)
        return False

    stream = io.BytesIO()
    pickler = pickle.Pickler(stream, protocol=5, buffer_callback=take)
    pickler.dispatch_table = copyreg.dispatch_table | {Array: _reduce_array}
    pickler.dump(item)
    return stream.getvalue(), found


def _reduce_array(array: Array) -> tuple[Any, ...]:
    buffer = pickle.PickleBuffer(array.data)
    return serialized, (array.dtype, tuple(array.shape), array.stype, buffer)


def _address(view: memoryview) -> int:
    return int(np.frombuffer(view, np.uint8).ctypes.data)


def _nameless_file() -> int:
    # Not /dev/shm, which containers limit to 64 MB.
    if hasattr(os, "memfd_create"):
        return os.memfd_create("fedproof")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
