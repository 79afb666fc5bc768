"""Signal handlers of child processes."""

from __future__ import annotations

import signal


def accept_sigint() -> None:
    """Give SIGINT its default action; a ``preexec_fn``, since jobs in a shell's background inherit it as ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
