"""`hwsim pair WORKLOAD --hw PROMPTS --token-hw TOKENS`: two machines on one request."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hwsim.cli import groups as g
from hwsim.cli import options as o


class Handoff(g.Group):
    """What hands over to what, and through what."""

    token_hw: Annotated[str | None, typer.Option("--token-hw", metavar="NAME", help="Machine of tokens [--hw].")] = None
    network: Annotated[
        str | None, typer.Option("--network", help='Rate of one device, e.g. "50 GB/s" [scale-out link of --hw].')
    ] = None
    mode: Annotated[str, typer.Option("--mode", help="serial, layerwise or best.")] = "best"

    def keywords(self) -> dict[str, Any]:
        """Those of `hwsim.pair`."""
        return {"token_on": self.token_hw, "network": self.network, "mode": self.mode}


@g.grouped
def command(
    workload: o.Workload,
    hw: o.Hardware,
    handoff: Handoff,
    load: g.Load,
    run: g.TeamRun,
    set_: o.Set = None,
    *,
    to: g.TableOrJson,
) -> None:
    """First, second and later tokens, and what of the hand-over is left to see."""
    form = to.form("table", "json")
    from hwsim.api import pair

    found = pair(workload, hw, what_if=o.parse_set(set_), **g.keywords(handoff, load, run))
    to.emit(o.to_json(found.to_dict()) if form == "json" else str(found))
