"""`hwsim speculate WORKLOAD --hw NAME --draft MODEL`: guesses of a small model, checked by a large one."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hwsim.cli import groups as g
from hwsim.cli import options as o


class Draft(g.Group):
    """Who guesses, and how well."""

    draft_hw: Annotated[str | None, typer.Option("--draft-hw", metavar="NAME", help="Its machine [--hw].")] = None
    draft_weights: Annotated[str | None, typer.Option("--draft-weights", help="Weight format of the draft.")] = None
    draft_tokens: Annotated[int, typer.Option("--draft-tokens", help="Guesses a round.")] = 4
    acceptance: Annotated[float, typer.Option("--acceptance", help="Chance that a guess is right.")] = 0.8
    overlap: Annotated[
        float, typer.Option("--overlap", help="Share of a check beside which the draft guesses on (Mirror-SD).")
    ] = 0.0

    def keywords(self) -> dict[str, Any]:
        """Those of `hwsim.speculate`."""
        given = super().keywords()
        weights = given.pop("draft_weights")
        options = {"weights": weights} if weights else None
        return {"draft_on": given.pop("draft_hw"), "draft_options": options, **given}


@g.grouped
def command(
    workload: o.Workload,
    hw: o.Hardware,
    draft: Annotated[str, typer.Option("--draft", metavar="MODEL", help="Model that guesses.")],
    guesses: Draft,
    load: g.Load,
    run: g.TeamRun,
    to: g.TableOrJson,
) -> None:
    """Time of a round, tokens that it gives, and the speed over plain decoding."""
    form = to.form("table", "json")
    from hwsim.api import speculate

    found = speculate(workload, hw, draft=draft, **g.keywords(guesses, load, run))
    to.emit(o.to_json(found.to_dict()) if form == "json" else str(found))
