"""hwsim: which hardware should run a model, how fast, at what energy and cost, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
_API = (
    "compare", "evaluate", "pair", "place", "plan", "plan_stages", "plan_training", "predict", "reproduce", "simulate",
    "speculate", "synthesize", "timeline",
)  # fmt: skip
__all__ = ["__version__", *_API]  # noqa: PLE0604

if TYPE_CHECKING:
    from hwsim.api import compare as compare
    from hwsim.api import evaluate as evaluate
    from hwsim.api import pair as pair
    from hwsim.api import place as place
    from hwsim.api import plan as plan
    from hwsim.api import plan_stages as plan_stages
    from hwsim.api import plan_training as plan_training
    from hwsim.api import predict as predict
    from hwsim.api import reproduce as reproduce
    from hwsim.api import simulate as simulate
    from hwsim.api import speculate as speculate
    from hwsim.api import synthesize as synthesize
    from hwsim.api import timeline as timeline


def __getattr__(name: str) -> Any:
    """Load the public functions on first use: `import hwsim` stays light."""
    if name in _API:
        import importlib

        return getattr(importlib.import_module("hwsim.api"), name)
    raise AttributeError(f"module 'hwsim' has no attribute {name!r}")
