"""One error for a disk that is full, whoever writes to it."""

from __future__ import annotations

import contextlib
import errno
import threading
from collections.abc import Iterator
from pathlib import Path

from mvde.errors import OutputError


@contextlib.contextmanager
def report_full_disk(output_dir: Path) -> Iterator[None]:
    """Raise :class:`OutputError` if the disk is full, also for the tracker.

    TensorBoard writes in its own thread, which would print a traceback, and raises the error again in ours.
    """
    before = threading.excepthook

    def show_others(arguments: threading.ExceptHookArgs) -> None:
        if not _is_disk_full(arguments.exc_value):
            before(arguments)

    threading.excepthook = show_others
    try:
        yield
    except OSError as error:
        if not _is_disk_full(error):
            raise
        raise OutputError(
            f"cannot write to {output_dir}: {error.strerror}; free disk space; the same command then resumes from "
            "the last saved state"
        ) from error
    finally:
        threading.excepthook = before


def _is_disk_full(error: BaseException | None) -> bool:
    return isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
