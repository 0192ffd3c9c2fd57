"""hwsim: which hardware should run a model, how fast, at what energy and cost, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = [
    "__version__", "compare", "evaluate", "pair", "place", "plan", "plan_stages", "plan_training", "predict", "reproduce", "simulate",
    "speculate", "timeline",
]  # fmt: skip

if TYPE_CHECKING:
    from hwsim.api import compare, evaluate, place, plan, plan_stages, plan_training, predict, simulate, timeline
    from hwsim.joint import pair, speculate
    from hwsim.reproduction import reproduce

_API = dict.fromkeys(
    ("compare", "evaluate", "place", "plan", "plan_stages", "plan_training", "predict", "simulate", "timeline"), "hwsim.api"
) | {"pair": "hwsim.joint", "speculate": "hwsim.joint", "reproduce": "hwsim.reproduction"}


def __getattr__(name: str) -> Any:
    """Load the public functions on first use: `import hwsim` stays light."""
    if name in _API:
        import importlib

        return getattr(importlib.import_module(_API[name]), name)
    raise AttributeError(f"module 'hwsim' has no attribute {name!r}")
