"""Where the reference data lies: HWSIM_SHARED, or the folder `shared` beside the checkout; not shipped to users."""

from __future__ import annotations

import os
from pathlib import Path


def shared_dir() -> Path | None:
    """The folder with measured runs, exact cases and claims, or None where there is none."""
    named = os.environ.get("HWSIM_SHARED")
    candidate = Path(named) if named else Path(__file__).resolve().parents[2] / "shared"
    return candidate if (candidate / "measured").is_dir() else None
