"""`hwsim validate serving DIR`: exact scheduler cases, or real-engine runs beside their trace."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hwsim.cli import groups as g
from hwsim.cli import options as o


class Settings(g.Group):
    """Of runs of a real engine; what is not given comes from their own settings."""

    workload: Annotated[str | None, typer.Option("--workload", help="Model of the runs [their settings].")] = None
    hw: Annotated[str | None, typer.Option("--hw", help="Hardware of the runs [their settings].")] = None
    tp: Annotated[int | None, typer.Option("--tp", help="Tensor-parallel ranks [their settings, else 1].")] = None
    policy: Annotated[str | None, typer.Option("--policy", help="Batching policy [vllm_v1].")] = None
    chunk: Annotated[int | None, typer.Option("--chunk", help="Tokens of an iteration [the engine's own].")] = None
    max_batch: Annotated[int | None, typer.Option("--max-batch", help="Most sequences [the engine's own].")] = None
    weights: o.Weights = None
    time_unit: Annotated[str | None, typer.Option("--time-unit", help="Unit of bare times: s, ms, us, ns.")] = None


@g.grouped
def command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder with cases.json, or with real-engine runs.")],
    settings: Settings,
    to: g.Destination,
) -> None:
    """Every request of every case: largest deviation in TTFT, end-to-end time and restarts; or, for runs of a real
    engine, median errors of TTFT, time per token and end-to-end time. Exit 4 on a miss."""
    form = to.form("table", "json")
    from hwsim.errors import CheckFailedError
    from hwsim.validation.serving import validate_serving

    document = validate_serving(folder, settings.keywords())
    to.emit(o.to_json(document) if form == "json" else render(document))
    if not document["passed"]:
        raise CheckFailedError("a serving case deviates by more than its tolerance", where=str(folder))


def render(document: dict[str, Any]) -> str:
    """One line a case."""
    if document["schema"] == "hwsim/validate-serving-runs@1":
        return _render_runs(document)
    lines = [f"{'case':<24}{'requests':>9}{'TTFT dev':>12}{'e2e dev':>12}{'restarts':>10}  verdict"]
    for case in document["cases"]:
        verdict = "ok" if case["passed"] else "MISS"
        note = f" ({case['convention']})" if case["convention"] else ""
        lines.append(
            f"{case['name']:<24}{case['requests']:>9}{case['ttft_s'] * 1e6:>9.4f} us{case['e2e_s'] * 1e6:>9.4f} us"
            f"{case['restarts']:>10}  {verdict}{note}"
        )
    lines.append(
        f"tolerance {document['tolerance_s'] * 1e6:g} us; deviations are maxima; restarts = requests that differ"
    )
    more = [_render_runs(document["engines"])] if "engines" in document else []
    return "\n".join([*lines, *more])


def _render_runs(document: dict[str, Any]) -> str:
    columns = ("e2e", "ttft", "ttft_scheduled", "tpot")
    heads = ("end to end", "TTFT", "TTFT (sched.)", "TPOT")
    lines = [f"{'run':<32}{'requests':>9}" + "".join(f"{head:>16}" for head in heads)]
    for run in document["runs"]:
        cells = "".join(_cell(run, name) for name in columns)
        lines.append(f"{run['name'][:31]:<32}{run['requests']:>9}{cells}")
    median = document["median"]
    lines.append(
        f"{'median of runs':<41}{100 * median['e2e_error']:>14.1f} %{100 * median['ttft_error']:>14.1f} %"
        f"{'':>16}{100 * median['tpot_error']:>14.1f} %"
    )
    lines.append("median absolute error over requests (bias); bars: end to end 10 %, TTFT 18 %, TPOT 10 %")
    return "\n".join(lines)


def _cell(run: dict[str, Any], name: str) -> str:
    if f"{name}_bias" not in run:
        return f"{'-':>16}"
    error, bias = 100 * run[f"{name}_error"], 100 * run[f"{name}_bias"]
    return f"{error:>7.1f} %{f'({bias:+.1f})':>7}"
