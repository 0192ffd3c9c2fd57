"""Progress on stderr: one line that overwrites itself on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import re
import sys
import time
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
