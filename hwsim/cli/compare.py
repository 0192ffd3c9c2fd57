"""`hwsim compare WORKLOAD --hw A --hw B`: the same scenario side by side."""

from __future__ import annotations

from hwsim.cli import options as o


def command(
    workload: o.Workload,
    hw: o.HardwareList,
    batch: o.Batch = 1,
    prompt: o.Prompt = None,
    output: o.Output = 128,
    weights: o.Weights = None,
    activations: o.Activations = None,
    kv_cache: o.KvCache = None,
    tp: o.Tp = 1,
    pp: o.Pp = 1,
    ep: o.Ep = 1,
    efficiency: o.Efficiency = "calibrated",
    price: o.Price = None,
    mapper: o.Mapper = "roofline",
    map_objective: o.MapObjective = None,
    map_budget: o.MapBudget = None,
    format_: o.Format = "table",
    out: o.OutFile = None,
    force: o.Force = False,
) -> None:
    """The same scenario on several machines; what differs besides the machine is said above the table."""
    form = o.check_format(o.format_of(format_, out), ("table", "json", "csv"))
    from hwsim.api import compare

    scenario = {"weights": weights, "activations": activations, "kv_cache": kv_cache, "tp": tp, "pp": pp, "ep": ep}
    scenario |= o.mapping_options(mapper, map_objective, map_budget)
    comparison = compare(
        workload, hw, batch=batch, prompt=prompt, output=output, efficiency=efficiency, price=price, **scenario
    )
    o.emit(_render(comparison, form), out, force)


def _render(comparison: dict[str, object], form: str) -> str:
    if form == "json":
        return o.to_json(comparison)
    if form == "csv":
        from hwsim.report.frames import comparison_csv

        return comparison_csv(comparison)
    from hwsim.report.table import comparison_table

    return comparison_table(comparison)
