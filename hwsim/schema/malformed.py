"""Reading documents that others wrote: what is missing in them is their fault and is said so."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hwsim.errors import HwsimError, InputError

MAX_BYTES = 200_000_000  # a saved document of any run is far below


@contextmanager
def reading(where: object, fix: str = "") -> Iterator[None]:
    """Turn what Python raises for a missing or misshapen part into InputError; errors of hwsim pass."""
    try:
        yield
    except HwsimError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, StopIteration) as error:
        missing = isinstance(error, KeyError)
        what = f"the part {error} is missing" if missing else "a part has another form than it should"
        seen = "" if missing else f"{error}"[:100]
        raise InputError(what, where=str(where), seen=seen, fix=fix) from error


def read_json(path: Path, fix: str = "") -> Any:
    """Plain data of a JSON file. Raises InputError: unreadable, too large, malformed, nested too deeply."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError("file is too large", where=str(path), seen=f"{path.stat().st_size} bytes", fix=fix)
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        seen = error.strerror or str(error)
        raise InputError(f"cannot read {path.name}", where=str(path), seen=seen, fix=fix) from None
    except json.JSONDecodeError as error:
        seen = f"{error.msg}, column {error.colno}"
        raise InputError(f"{path.name} is not JSON", where=f"{path}:{error.lineno}", seen=seen, fix=fix) from None
    except UnicodeDecodeError:
        raise InputError(f"{path.name} is not UTF-8 text", where=str(path), fix=fix) from None
    except RecursionError:
        raise InputError(f"{path.name} is nested too deeply", where=str(path), fix=fix) from None
