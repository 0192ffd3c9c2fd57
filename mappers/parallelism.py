"""Tensor x pipeline x data x expert x sequence parallelism of a whole model under memory and service limits.

The candidates arrive costed by the engine; this file decides. Replace it by a rule of your own with
``hwsim map MODEL --hw X --mapper parallelism --chooser ./mine.py``.
"""

from __future__ import annotations

from hwsim.mapping import Choice, Columns, Limits, Refine, choose


class Parallelism:
    """The best layout, proved against the bound of every other candidate."""

    name = "parallelism"
    kind = "layout"
    summary = "TP x PP x DP x EP x SP, proved best of all legal layouts"

    def map(self, columns: Columns, objective: str, limits: Limits, refine: Refine, budget_s: float | None) -> Choice:
        """Refine in the order of the bound until nothing better can be left."""
        return choose(columns, objective, limits, refine, budget_s)


MAPPER = Parallelism()
