"""The public function `reproduce`: published claims through the other public functions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from hwsim.api.answer import Answer
from hwsim.api.evaluation import evaluate
from hwsim.api.joint import pair, speculate
from hwsim.api.serving import simulate
from hwsim.api.timelines import timeline
from hwsim.errors import unknown_name


class Reproduction(Answer):
    """Result of `reproduce`: the `hwsim/reproduction@1` document and its notebook view."""

    def __str__(self) -> str:
        from hwsim.report.claims import table

        return table(self.document)

    def _repr_html_(self) -> str:
        from hwsim.report.claims import page

        return page(self.document)


def reproduce(
    *systems: str,
    claims: str | Path | None = None,
    efficiency: str | None = None,
    failed: bool = False,
    note: Callable[[str], None] | None = None,
) -> Reproduction:
    """Published claims of the named systems [all], predicted beside published; what ``hwsim reproduce`` prints.

    Parameters
    ----------
    claims: a claims file to run instead of the shipped claims; the shipped rules of each system drive it.
    efficiency: ``datasheet`` for the bare roofline. failed: keep only the rows that did not pass.
    note: is told about progress.

    Raises
    ------
    UnknownNameError: a system without claims. InputError: a malformed file.
    """
    if efficiency not in (None, "calibrated", "datasheet"):
        raise unknown_name("efficiency", efficiency, ("calibrated", "datasheet"), where="--efficiency")
    from hwsim.validation.claims import MISSES, select
    from hwsim.validation.claims import reproduce as run

    chosen, files = select(systems, None if claims is None else Path(claims))
    others: dict[str, Callable[..., Any]] = {
        "simulate": simulate,
        "timeline": timeline,
        "pair": pair,
        "speculate": speculate,
    }
    document = run(chosen, files, evaluate, efficiency=efficiency, runners=others, note=note)
    if failed:
        document = {**document, "rows": [r for r in document["rows"] if r["verdict"] in MISSES]}
    return Reproduction(document)
