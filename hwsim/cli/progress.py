"""Progress on stderr: one line that overwrites itself on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import re
import sys
import threading
import time
from types import TracebackType
from typing import Final

from hwsim.cli import options as o

_REDRAW_S: Final = 0.1
_LINE_S: Final = 5.0
_WIDTH: Final = 24
_COUNTS: Final = re.compile(r"^([\d,]+) of ([\d,]+) ")


class Meter:
    """Callable with messages; ``N of M ...`` draws a bar. `close` clears the line."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._shown = False
        self._last_s = time.monotonic()

    def __call__(self, text: str) -> None:
        counts = _COUNTS.match(text)
        if counts is None:
            self.close()
            o.note(text)
            return
        now_s = time.monotonic()
        if now_s - self._last_s < (_REDRAW_S if self._terminal else _LINE_S):
            return
        self._last_s = now_s
        if not self._terminal:
            o.note(text)
            return
        done, total = (int(part.replace(",", "")) for part in counts.groups())
        full = _WIDTH * done // max(1, total)
        sys.stderr.write(f"\r\x1b[K[{'#' * full}{'.' * (_WIDTH - full)}] {text}")
        sys.stderr.flush()
        self._shown = True

    def close(self) -> None:
        """Take the bar off the screen."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._shown = False


class Pulse:
    """Callable with what is being worked on, where a step may take long: shown at once on a terminal; elsewhere a
    line every `_LINE_S` seconds, with the time since the step began. A context manager: leaving it wipes the line.
    """

    def __init__(self, *, silent: bool = False, every_s: float = _LINE_S) -> None:
        self._silent, self._every_s = silent, every_s
        self._text, self._begun_s = "", time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Pulse:
        if not self._silent:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        if not self._silent:
            o.progress("")

    def __call__(self, text: str) -> None:
        self._text, self._begun_s = text, time.monotonic()
        if not self._silent:
            o.progress(text)

    def _beat(self) -> None:
        while not self._stop.wait(self._every_s):
            text = f"{self._text}, {time.monotonic() - self._begun_s:.0f} s so far"
            if sys.stderr.isatty():
                o.progress(text)
            elif self._text:
                o.note(text)
