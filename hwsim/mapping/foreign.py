"""Calls into a user's mapper file: what goes wrong there is said as theirs, with its line, never as a bug of hwsim."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hwsim.errors import HwsimError, InputError


class MapperFailedError(InputError):
    """A mapper file raised something else than an error of hwsim, or returned no decision."""


class Foreign:
    """A user's mapper: the same attributes, its methods guarded."""

    def __init__(self, mapper: Any, path: Path) -> None:
        self._mapper, self._path = mapper, path

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._mapper, name)
        return self._guarded(found, name) if callable(found) else found

    def _guarded(self, method: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            answer = run_foreign(lambda: method(*given, **named), self._path, f"{name} of the mapper fails")
            if name == "map" and not type(answer).__module__.startswith("hwsim."):
                raise MapperFailedError(
                    "map of the mapper returns no decision",
                    where=str(self._path),
                    seen=repr(answer)[:80],
                    fix="return a Decision (docs/recipes/mapper.md)",
                )
            return answer

        return call


def run_foreign(call: Callable[[], Any], path: Path, what: str, failed: type[InputError] = MapperFailedError) -> Any:
    """The value of `call`; errors of hwsim pass. Raises `failed` with the last line of the file at `path`."""
    try:
        return call()
    except HwsimError:
        raise
    except (Exception, SystemExit) as error:
        own = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = f":{own[-1]}" if own else ""
        raise failed(
            what, where=f"{path}{line}", seen=f"{type(error).__name__}: {error}"[:200], fix="HWSIM_DEBUG=1 shows more"
        ) from error
