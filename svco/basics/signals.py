"""Signals that ask a run to stop, and the processes that must outlive them."""

from __future__ import annotations

import os
import signal
import threading

STOP_SIGNALS = (signal.SIGUSR1, signal.SIGTERM)


def outlive_stop_signals() -> None:
    """In a loader's worker process: launchers send SIGTERM to a rank's children too, and a worker's death would end the rank
    before its save. From here on only the rank itself ends the worker."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    threading.Thread(target=_obey_parent, name="svco-parent", daemon=True).start()


def _obey_parent() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
