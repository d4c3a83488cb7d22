"""Peak memory of this process and all its descendants, as summed PSS (shared pages count once)."""

import threading
from types import TracebackType

import psutil


class PeakMemory:
    """Samples the process tree every `seconds` while entered; `peak_bytes` is the largest sum seen."""

    def __init__(self, seconds: float = 2.0) -> None:
        self.seconds = seconds
        self.peak_bytes = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="peak-memory")

    def __enter__(self) -> "PeakMemory":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self.sample()

    def _watch(self) -> None:
        while not self._stop.wait(self.seconds):
            self.sample()

    def sample(self) -> int:
        """The sum now, in bytes."""
        own = psutil.Process()
        total = sum(_pss(process) for process in [own, *own.children(recursive=True)])
        self.peak_bytes = max(self.peak_bytes, total)
        return total


def _pss(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except psutil.Error:
        return 0  # it ended while we looked
