"""Progress of a run for people: a live line on a terminal, plain lines every few seconds in a log."""

import contextlib
import importlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TextIO, runtime_checkable

_SECONDS_BETWEEN_LINES = 10.0


@runtime_checkable
class Reporter(Protocol):
    """What the host loop tells. ``line`` is a sentence that stays; ``status`` replaces the one before it."""

    def line(self, text: str) -> None: ...
    def status(self, text: str) -> None: ...


class Silent:
    """Says nothing."""

    def line(self, text: str) -> None:
        del text

    def status(self, text: str) -> None:
        del text


class PlainReporter:
    """Lines on a stream; of the statuses, one every ten seconds."""

    def __init__(self, stream: TextIO | None = None):
        self._stream = stream
        self._last = 0.0

    def line(self, text: str) -> None:
        with contextlib.suppress(OSError):  # a full disk, a terminal that is gone: nothing to end a run for
            # Looked up late: a test or a supervisor may have replaced sys.stderr since.
            print(text, file=self._stream or sys.stderr, flush=True)

    def status(self, text: str) -> None:
        now = time.monotonic()
        if now - self._last >= _SECONDS_BETWEEN_LINES:
            self._last = now
            self.line(text)


class LiveReporter:
    """One line that keeps changing, on a terminal."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True)
        self._live = self._console.status("")

    def line(self, text: str) -> None:
        self._live.stop()
        self._console.print(text, highlight=False, markup=False)

    def status(self, text: str) -> None:
        from rich.text import Text

        self._live.update(Text(text))
        self._live.start()

    def close(self) -> None:
        self._live.stop()


class Log:
    """Writes a run's log.txt, which only the run's owner writes, and passes everything on."""

    def __init__(self, file: TextIO, beside: Reporter):
        self._plain = PlainReporter(file)
        self._beside = beside

    def line(self, text: str) -> None:
        self._plain.line(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}")
        self._beside.line(text)

    def status(self, text: str) -> None:
        self._plain.status(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}")
        self._beside.status(text)


class NotebookReporter:
    """One line that keeps changing, under a notebook's cell.

    Args:
        display: IPython's ``display``.
    """

    def __init__(self, display: Callable[..., Any]):
        self._display = display
        self._live: Any = None

    def line(self, text: str) -> None:
        self._display({"text/plain": text}, raw=True)

    def status(self, text: str) -> None:
        if self._live is None:
            self._live = self._display({"text/plain": text}, raw=True, display_id=True)
        else:
            self._live.update({"text/plain": text}, raw=True)

    def close(self) -> None:
        if self._live is not None:
            self._live.update({"text/plain": ""}, raw=True)


@contextlib.contextmanager
def session_reporter() -> Iterator[Reporter]:
    """A line that changes while the block lasts, in a notebook or a terminal; plain lines elsewhere."""
    # What has not imported IPython is no notebook. A notebook's shell has a kernel, that of a terminal has none.
    ipython = sys.modules.get("IPython")
    if ipython is None or getattr(ipython.get_ipython(), "kernel", None) is None:
        with terminal_reporter() as reporter:
            yield reporter
        return
    notebook = NotebookReporter(importlib.import_module("IPython.display").display)
    try:
        yield notebook
    finally:
        notebook.close()


@contextlib.contextmanager
def terminal_reporter() -> Iterator[Reporter]:
    """A live line where standard error is a terminal, gone after the block; plain lines elsewhere."""
    if not sys.stderr.isatty():
        yield PlainReporter()
        return
    live = LiveReporter()
    try:
        yield live
    finally:
        live.close()
