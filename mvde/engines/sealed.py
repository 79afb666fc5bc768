"""A file's content, read once, hashed, and kept in immutable memory, so that the hashed bytes are those that run.

A mapped file would not do: truncating it kills the process (SIGBUS), and overwriting it in place changes the engine
after its hash was checked.
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
"""A sealed file descriptor, or private memory."""


class SealedFile:
    """Immutable in-memory copy of a file and its SHA-256.

    The memory is a sealed ``memfd_create`` file, so that processes can share one copy: pickling to a process spawned by
    :mod:`multiprocessing` transfers the file descriptor, not the content. Without ``memfd_create`` it is private memory
    and is copied. Pages are loaded on access and shared by all processes.
    """

    def __init__(self, path: Path) -> None:
        """Copy the file at ``path``.

        Raises :class:`ArtifactError` if it cannot be read or is not a regular file.
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
        """SHA-256 of the content as 64 hexadecimal digits."""
        return self._sha256

    @property
    def size_bytes(self) -> int:
        """Size of the content in bytes."""
        return self._size_bytes

    @property
    def fd(self) -> int | None:
        """File descriptor of the sealed memory, valid as long as this object; ``None`` for private memory."""
        return self._kept if isinstance(self._kept, int) else None

    @property
    def array(self) -> NDArray[np.uint8]:
        """The content as a new copy-on-write mapping; writes are private to it."""
        import numpy as np

        return np.frombuffer(self.view(), np.uint8) if self._size_bytes else np.empty(0, np.uint8)

    def view(self) -> memoryview:
        """The content as a buffer over a new mapping, which lives as long as its users."""
        if not isinstance(self._kept, int):
            return memoryview(self._kept)
        if not self._size_bytes:
            return memoryview(b"")
        return memoryview(mmap.mmap(self._kept, self._size_bytes, access=mmap.ACCESS_COPY))

    def close(self) -> None:
        """Close the file descriptor; existing mappings stay valid. Idempotent."""
        if isinstance(self._kept, int):
            os.close(self._kept)
        self._kept, self._size_bytes = bytearray(), 0

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError):  # __init__ failed
            self.close()

    def __reduce__(self) -> tuple[Callable[..., SealedFile], tuple[Any, ...]]:
        sent = reduction.DupFd(self._kept) if isinstance(self._kept, int) else bytes(self._kept)
        return _received, (sent, self._sha256)


def _received(sent: Any, sha256: str) -> SealedFile:
    """Unpickle a file sealed by another process. Raises :class:`ArtifactError` for an unsealed descriptor."""
    received = SealedFile.__new__(SealedFile)
    received._kept = bytearray(sent) if isinstance(sent, bytes) else sent.detach()
    received._size_bytes, received._sha256 = _size_bytes(received._kept), sha256
    if received.fd is not None and not _is_sealed(received.fd):
        raise ArtifactError("the engine received from another process is not sealed; load it from its folder instead")
    return received


def _open_regular(path: Path) -> Any:
    """Open a regular file unbuffered; never blocks on a pipe without a writer."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError("it is not a regular file")
    return open(descriptor, "rb", buffering=0)  # noqa: PTH123 - of a descriptor


def _size_bytes(kept: Kept) -> int:
    return os.fstat(kept).st_size if isinstance(kept, int) else len(kept)


def _copy(source: Any, name: str) -> Kept:
    """Copy the stream into a sealed memfd, or into private memory if the system has none."""
    if not hasattr(os, "memfd_create"):
        return bytearray(source.read())
    try:
        descriptor = os.memfd_create(f"mvde:{name}"[:200], os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except OSError:  # forbidden by some sandboxes
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


# No writing, growing, shrinking or unsealing.
_SEALS = sum(getattr(fcntl, f"F_SEAL_{name}", 0) for name in ("WRITE", "GROW", "SHRINK", "SEAL"))
