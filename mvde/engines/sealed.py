"""A file's content, read once, hashed, and kept where nobody can change it.

What was hashed is what runs. A file that is mapped into memory is still the file: cut off under a running process it
kills it (SIGBUS), overwritten in place it gives other depth after the hash was compared.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import mmap
import os
import stat
from collections.abc import Callable
from multiprocessing import reduction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

from mvde.errors import ArtifactError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_CHUNK_BYTES = 1 << 20

Kept = Union[int, bytearray]  # noqa: UP007 - evaluated when the module is imported
"""A sealed descriptor, or private memory."""


class SealedFile:
    """The bytes of a file as they were when it was opened, in memory that never changes, and their SHA-256.

    The memory is a sealed file of the system's (``memfd_create``), so that processes can share one copy: pickled to a
    process that :mod:`multiprocessing` spawns, its descriptor goes along, not its content. Where the system has none,
    it is private memory, and is copied. A process pays for the pages that it reads, once for all that share them.
    """

    def __init__(self, path: Path) -> None:
        """Copy of the file at ``path``.

        Raises :class:`ArtifactError` where it cannot be read, or is no regular file.
        """
        try:
            with _open_regular(path) as source:
                self._kept: Kept = _copy(source, path.name)
        except OSError as error:
            raise ArtifactError(f"cannot read {path}: {error.strerror or error}") from error
        self._size_bytes = _size_bytes(self._kept)
        self._sha256 = hashlib.sha256(self.view()).hexdigest()

    @property
    def sha256(self) -> str:
        """SHA-256 of the bytes that are kept, as 64 hexadecimal digits."""
        return self._sha256

    @property
    def size_bytes(self) -> int:
        """How many bytes there are."""
        return self._size_bytes

    @property
    def fd(self) -> int | None:
        """Descriptor of the sealed memory, which lives as long as this object; ``None`` for private memory."""
        return self._kept if isinstance(self._kept, int) else None

    @property
    def array(self) -> NDArray[np.uint8]:
        """The bytes, a map of its own for each call; it can be written, which nobody else sees."""
        import numpy as np

        return np.frombuffer(self.view(), np.uint8) if self._size_bytes else np.empty(0, np.uint8)

    def view(self) -> memoryview:
        """The bytes as a buffer, a map of its own for each call, which lives as long as what looks at it."""
        if not isinstance(self._kept, int):
            return memoryview(self._kept)
        if not self._size_bytes:
            return memoryview(b"")
        return memoryview(mmap.mmap(self._kept, self._size_bytes, access=mmap.ACCESS_COPY))

    def close(self) -> None:
        """Give the descriptor back; maps that were handed out stay. Safe to call twice."""
        if isinstance(self._kept, int):
            os.close(self._kept)
        self._kept, self._size_bytes = bytearray(), 0

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError):  # a file that could not be opened
            self.close()

    def __reduce__(self) -> tuple[Callable[..., SealedFile], tuple[Any, ...]]:
        sent = reduction.DupFd(self._kept) if isinstance(self._kept, int) else bytes(self._kept)
        return _received, (sent, self._sha256)


def _received(sent: Any, sha256: str) -> SealedFile:
    """The file that another process sealed and hashed. Raises :class:`ArtifactError` for a descriptor without seals."""
    received = SealedFile.__new__(SealedFile)
    received._kept = bytearray(sent) if isinstance(sent, bytes) else sent.detach()
    received._size_bytes, received._sha256 = _size_bytes(received._kept), sha256
    if received.fd is not None and not _is_sealed(received.fd):
        raise ArtifactError("the engine that was handed over can still be written; load it from its folder instead")
    return received


def _open_regular(path: Path) -> Any:
    """The file as a stream without a buffer; never waits for a writer at the other end of a pipe."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError("it is not a regular file")
    return open(descriptor, "rb", buffering=0)  # noqa: PTH123 - of a descriptor


def _size_bytes(kept: Kept) -> int:
    return os.fstat(kept).st_size if isinstance(kept, int) else len(kept)


def _copy(source: Any, name: str) -> Kept:
    """What the stream holds, as a sealed descriptor, or in private memory where the system has no sealed files."""
    if not hasattr(os, "memfd_create"):
        return bytearray(source.read())
    try:
        descriptor = os.memfd_create(f"mvde:{name}"[:200], os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except OSError:  # forbidden, as some sandboxes do
        return bytearray(source.read())
    try:
        while chunk := source.read(_CHUNK_BYTES):
            _write_all(descriptor, chunk)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _write_all(descriptor: int, chunk: bytes) -> None:
    rest = memoryview(chunk)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _is_sealed(descriptor: int) -> bool:
    return fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & _SEALS == _SEALS


# Neither written, nor made longer or shorter, nor the seals taken off.
_SEALS = sum(getattr(fcntl, f"F_SEAL_{name}", 0) for name in ("WRITE", "GROW", "SHRINK", "SEAL"))
