"""The parallelism mapper: legal layouts, columns equal to `evaluate`, choice equal to brute force, honest refusals."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import hwsim
from hwsim.api import prepare
from hwsim.cli.main import app
from hwsim.engine.estimate import mapping_of
from hwsim.errors import CheckFailedError, HwsimError, InfeasibleError, InputError, UnknownNameError
from hwsim.explore.layout_stages import refiner
from hwsim.explore.layouts import Search, cost_layouts
from hwsim.explore.parallelism import Goal, plan
from hwsim.frontends.catalog import load_model
from hwsim.frontends.formats import Formats
from hwsim.mapping.lower import lower
from hwsim.mapping.parallelism.choose import Choice, as_is, choose
from hwsim.mapping.parallelism.columns import Limits, allowed, failures, pareto
from hwsim.mapping.parallelism.layouts import Extents, Layout, enumerate_layouts, objection
from hwsim.mapping.registry import load_mapper
from hwsim.report.parallelism import plan_text
from hwsim.schema.loader import load_hardware

FIGURES = {
    "ttft_s": "ttft_s", "tpot_s": "tpot_s", "latency_s": "latency_s", "tokens_per_s": "throughput_tokens_per_s",
    "energy_j_per_token": "energy_j_per_token", "cost_usd_per_mtok": "cost_usd_per_mtok",
}  # fmt: skip


SCENARIO = {
    "prompt_tokens": 1, "output_tokens": 1, "weights": "bf16", "activations": "bf16", "kv_cache": "bf16",
    "efficiency": "calibrated", "batching": "static",
}  # fmt: skip


def search(workload: str, hardware: str, devices: int, **options: Any) -> Search:
    batches = options.pop("batches", ())
    sizes = (options.pop("prompt", 512), options.pop("output", 64), None)
    model, platform, scenario, _ = prepare(workload, hardware, 1, *sizes, options)
    formats = Formats.of(scenario.weights, None, None)
    return Search(model.model, platform, scenario, formats, devices, batches)


# --- which layouts are legal


@pytest.mark.parametrize("model", ["llama-3.1-70b", "mixtral-8x7b", "falcon-7b", "deepseek-v3", "qwen2.5-7b"])
def test_what_is_called_legal_can_be_lowered_and_what_cannot_is_not(model: str) -> None:
    """`objection` states the rules; `lower` enforces them. Both must agree on every small tuple."""
    platform = load_hardware("dgx-h100-x16").platform
    loaded = load_model(model)
    graphs = [loaded.graph("prefill", 1, 8, 0), loaded.graph("decode", 1, 1, 8)]
    extents = Extents.of(*graphs)
    base = prepare(model, "dgx-h100-x16", 1, 8, 1, None, {})[2]
    for tp, pp, dp, ep in itertools.product((1, 2, 3, 4, 5, 7, 8), (1, 3), (1, 2), (1, 2, 3, 4, 8, 16)):
        layout = Layout(tp, pp, dp, ep)
        reason = objection(layout, extents, platform)
        try:
            [lower(g, platform, mapping_of(replace(base, tp=tp, pp=pp, dp=dp, ep=ep))) for g in graphs]
        except InfeasibleError as error:
            refused = error.what
        else:
            refused = ""
        assert bool(reason) >= bool(refused), f"{layout}: lower says {refused}"
        assert bool(refused) >= (bool(reason) and "KV heads" not in reason and "straddle" not in reason), (
            layout,
            reason,
        )


def test_every_layout_is_within_the_machine_and_listed_once() -> None:
    graph = load_model("mixtral-8x7b").graph("prefill", 1, 8, 0)
    legal = enumerate_layouts(Extents.of(graph), load_hardware("dgx-h100-x4").platform, 32)
    assert len(set(legal.layouts)) == len(legal.layouts)
    assert all(1 <= layout.devices <= 32 for layout in legal.layouts)
    assert {layout.ep for layout in legal.layouts} == {1, 2, 4, 8}
    assert any(layout.ep > layout.tp for layout in legal.layouts)
    assert not any(layout.sp and layout.tp == 1 for layout in legal.layouts)


def test_layouts_of_a_number_with_no_good_divisor_leave_devices_idle() -> None:
    graph = load_model("llama-3.1-8b").graph("prefill", 1, 8, 0)
    legal = enumerate_layouts(Extents.of(graph), load_hardware("dgx-h100").platform, 7)
    assert Layout(4, 1, 1) in legal.layouts
    assert Layout(1, 7, 1) in legal.layouts
    assert legal.refused["tp does not divide the matrix widths"] == 2  # tp 7, with and without rows


@pytest.mark.parametrize(
    ("layout", "hardware", "reason"),
    [
        (Layout(16), "dgx-h100", "a group leaves the node and there is no network"),
        (Layout(8, 4), "dgx-h100", "stages leave the node and there is no network"),
        (Layout(16), "dgx-h100-x4", ""),
        (Layout(4, 40), "dgx-h100-x4", "more stages than layers"),
        (Layout(3), "dgx-h100", "tp does not divide the attention heads"),
    ],
)
def test_reasons(layout: Layout, hardware: str, reason: str) -> None:
    graph = load_model("llama-2-7b").graph("prefill", 1, 8, 0)
    found = objection(layout, Extents.of(graph), load_hardware(hardware).platform)
    assert found == reason or (reason.startswith("tp does not") and found.startswith("tp does not"))


# --- columns are what `hwsim evaluate` says


@pytest.mark.parametrize(
    ("workload", "hardware", "devices", "batches"),
    [
        ("llama-3.1-8b", "dgx-h100", 8, (1, 5, 64)),
        ("mixtral-8x7b", "dgx-h100-x4", 16, (3, 128)),
        ("llama-2-13b", "l40s-8", 6, (2, 24)),
        ("bert-large", "dgx-a100", 4, (8,)),
    ],
)
def test_every_column_is_what_evaluate_says(workload: str, hardware: str, devices: int, batches: Any) -> None:
    question = search(workload, hardware, devices, batches=batches)
    columns = cost_layouts(question).columns
    assert len(columns) > 10
    picks = range(len(columns)) if len(columns) < 24 else range(0, len(columns), len(columns) // 24)
    for i in picks:
        layout = columns.layouts[columns.layout[i]]
        degrees = {"tp": layout.tp, "pp": layout.pp, "ep": layout.ep, "dp": layout.dp, "sp": layout.sp}
        alone = hwsim.evaluate(
            workload, hardware, batch=int(columns.batch[i]), prompt=512, output=64, check_fit=False, **degrees
        )
        for name, metric in FIGURES.items():
            value = alone.estimate.metrics.get(metric)
            if value is not None:
                assert getattr(columns, name)[i] == pytest.approx(value.value, rel=1e-12), (layout, name)
        memory = alone.document["memory"]
        parts = memory["weights_bytes"] + memory["kv_cache_bytes"] + memory["activations_bytes"]
        assert columns.needed_bytes[i] == pytest.approx(parts, rel=1e-12)
        assert bool(columns.fits[i]) == memory["fits"]


# --- the choice


def brute_force(question: Search, objective: str, limits: Limits) -> float:
    """Refine everything; the best value that keeps the limits."""
    columns = cost_layouts(question).columns
    refine = refiner(question, columns)
    best = math.inf
    for i in np.flatnonzero(columns.fits):
        try:
            one = refine(int(i))
        except InfeasibleError:
            continue
        if one.ttft_s <= limits.ttft_s and one.tpot_s <= limits.tpot_s:
            best = min(best, one.value(objective, columns.devices))
    return best


FREE, TIGHT = Limits(), Limits(0.5, 0.03)


@pytest.mark.parametrize(
    ("objective", "limits"), [("latency", FREE), ("throughput", TIGHT), ("energy", FREE), ("cost", TIGHT)]
)
def test_the_choice_is_that_of_brute_force(objective: str, limits: Limits) -> None:
    question = search("llama-2-13b", "l40s-8", 4, batches=(1, 4, 16))
    columns = cost_layouts(question).columns
    choice = choose(columns, objective, limits, refiner(question, columns))
    value = choice.best.value(objective, columns.devices)
    assert value == pytest.approx(brute_force(question, objective, limits), rel=1e-9)
    assert choice.report.status == "optimal"
    assert choice.report.bound <= value


def test_pipelines_are_never_quicker_than_their_columns() -> None:
    """The bound of the proof: whole layers on stages, an embedding and a head cannot beat equal stages."""
    question = search("deepseek-v2-lite", "dgx-h100", 4, batches=(1, 64))
    columns = cost_layouts(question).columns
    refine = refiner(question, columns)
    staged = [i for i in range(len(columns)) if columns.layouts[columns.layout[i]].pp > 1 and columns.fits[i]]
    assert staged
    for i in staged[:: max(len(staged) // 8, 1)]:
        one = refine(i)
        assert one.partition is not None
        assert sum(one.partition.counts) == 27
        for name in ("ttft_s", "tpot_s", "latency_s", "energy_j_per_token", "cost_usd_per_mtok"):
            assert getattr(one, name) >= getattr(columns, name)[i] * (1 - 1e-12), name
        assert one.tokens_per_s <= columns.tokens_per_s[i] * (1 + 1e-12)


def test_equal_stages_without_ends_keep_the_figures_of_the_column() -> None:
    """32 equal layers on 2 stages: only the ends differ, and the figures move by less than their share."""
    question = search("llama-3.1-8b", "dgx-h100", 2, batches=(8,))
    columns = cost_layouts(question).columns
    at = next(i for i in range(len(columns)) if columns.layouts[columns.layout[i]] == Layout(1, 2, 1))
    one = refiner(question, columns)(at)
    assert one.partition is not None
    assert one.partition.counts == (17, 15)  # the head is worth two layers
    assert columns.latency_s[at] < one.latency_s < 1.12 * columns.latency_s[at]


def test_limits_only_cost() -> None:
    """Tighter limits never improve the objective (LAW: the feasible set shrinks)."""
    question = search("llama-3.1-8b", "dgx-h100", 8)
    columns = cost_layouts(question).columns
    refine = refiner(question, columns)
    values = []
    for tpot in (math.inf, 0.03, 0.015, 0.009):
        best = choose(columns, "throughput", Limits(2.0, tpot), refine).best
        assert best.tpot_s <= tpot
        assert best.ttft_s <= 2.0
        values.append(best.value("throughput", 8))
    assert values == sorted(values)


def test_nothing_beats_the_front_and_everything_else_is_beaten() -> None:
    columns = cost_layouts(search("llama-3.1-8b", "dgx-h100", 4)).columns
    good = allowed(columns, Limits())
    front = pareto(columns, good)
    user, device = 1.0 / columns.tpot_s, columns.tokens_per_s_device
    for i in np.flatnonzero(good):
        beaten = (user[front] >= user[i]) & (device[front] >= device[i])
        assert beaten.any()
    for i in front:
        better = good & (user >= user[i]) & (device >= device[i]) & ((user > user[i]) | (device > device[i]))
        assert not better.any()


@pytest.mark.parametrize("options", [{"batch": (2,)}, {"batch": (2, 64), "slo": "tpot=20ms"}, {"batch": (512,)}])
def test_every_layout_is_accounted_for(options: dict[str, Any]) -> None:
    c = hwsim.plan("llama-3.1-70b", "dgx-h100", devices=8, **options).document["considered"]
    assert c["feasible"] + sum(c["failed"].values()) == c["legal"]
    assert 0 < c["feasible"] <= c["priced_layouts"]


def test_failures_add_up() -> None:
    columns = cost_layouts(search("llama-3.1-70b", "dgx-h100", 8)).columns
    limits = Limits(0.3, 0.02)
    counts = failures(columns, limits)
    kept = len(np.unique(columns.layout[allowed(columns, limits)]))
    assert sum(counts.values()) + kept == len(np.unique(columns.layout))


def test_a_mapper_that_breaks_a_limit_or_invents_figures_is_caught() -> None:
    question = search("llama-3.1-8b", "dgx-h100", 2, batches=(64,))
    limits = Limits(10.0, float(cost_layouts(question).columns.tpot_s[0]) * 0.99)

    class Careless:
        name, kind, summary = "careless", "layout", "takes the first column"
        factor = 1.0

        def map(self, columns: Any, objective: str, limits: Any, refine: Any, budget_s: Any) -> Choice:
            honest = choose(columns, objective, Limits(), refine)
            best = replace(as_is(columns, 0), tpot_s=float(columns.tpot_s[0]) * self.factor)
            return replace(honest, best=best)

    with pytest.raises(CheckFailedError, match="breaks a limit"):
        plan(question, Careless(), Goal("throughput", limits), {})
    liar = Careless()
    liar.factor = 0.5
    with pytest.raises(CheckFailedError, match="changed the figures"):
        plan(question, liar, Goal("throughput", limits), {})


# --- answers and refusals


class _Tighter:
    """A layout mapper that proves its choice under limits of its own, as in docs/recipes/mapper.md."""

    name, kind, summary = "tighter", "layout", "the shipped rule with a tighter TPOT"

    def map(self, columns: Any, objective: str, limits: Limits, refine: Any, budget_s: Any) -> Choice:
        return choose(columns, objective, Limits(limits.ttft_s, limits.tpot_s * 0.9), refine, budget_s)


def test_a_choice_that_another_layout_beats_is_never_called_best() -> None:
    question, limits = search("llama-3.1-70b", "dgx-h100", 8), Limits(tpot_s=0.03)
    document = plan(question, _Tighter(), Goal("throughput", limits), {})
    solver, others = document["solver"], document["ranking"][1:]
    best = max(row["tokens_per_s_device"] for row in others)
    assert solver["claimed"] == "optimal" and solver["status"] == "feasible" and solver["gap"] > 0.01
    assert solver["better"]["tokens_per_s_device"] == best > document["chosen"]["tokens_per_s_device"]
    assert -solver["bound"] >= best
    shown = plan_text(document | {"workload": {"name": "m"}, "hardware": {"name": "h"}, "scenario": SCENARIO})
    assert "proved best" not in shown and "not the best: " in shown and "calls its choice proved" in shown
    free = plan(question, _Tighter(), Goal("throughput", Limits()), {})
    assert free["solver"]["status"] == "optimal" and free["solver"]["better"] is None


def test_a_claimed_objective_that_is_not_the_choices_is_an_error() -> None:
    question = search("llama-3.1-8b", "dgx-h100", 2, batches=(64,))

    class Boaster(_Tighter):
        def map(self, *given: Any) -> Choice:
            honest = super().map(*given)
            return replace(honest, report=replace(honest.report, objective=honest.report.objective * 2))

    with pytest.raises(CheckFailedError, match="objective"):
        plan(question, Boaster(), Goal("throughput"), {})


def test_pipelines_keep_the_figures_that_their_stages_give() -> None:
    question = search("llama-3.1-8b", "dgx-h100", 2, batches=(64,))
    columns = cost_layouts(question).columns
    deep = next(i for i in range(len(columns)) if columns.layouts[columns.layout[i]].pp == 2 and columns.fits[i])

    class Optimist(_Tighter):
        def map(self, columns: Any, objective: str, limits: Limits, refine: Any, budget_s: Any) -> Choice:
            quick = replace(refine(deep), latency_s=float(columns.latency_s[deep]) * 0.5)
            return replace(choose(columns, objective, limits, refine), best=quick)

    with pytest.raises(CheckFailedError, match="changed the figures"):
        plan(question, Optimist(), Goal("latency"), {})


@pytest.mark.parametrize("raw", ["gemm:64x64x64", "attention:1x8x64x64x64"])
def test_raw_operators_are_no_models_to_divide(raw: str) -> None:
    for ask in (
        lambda: hwsim.plan(raw, "dgx-h100"),
        lambda: hwsim.plan_training(raw, "dgx-h100"),
        lambda: hwsim.plan_stages(raw, ["h100-sxm:1"]),
    ):
        with pytest.raises(InputError, match="leave out --mapper parallelism"):
            ask()


def test_an_unpriced_device_has_layouts() -> None:
    question = search("llama-3.1-8b", "dgx-h100", 2, batches=(64,))
    question = replace(question, platform=question.platform.with_(price=None))
    document = plan(question, load_mapper("parallelism").mapper, Goal("latency"), {})
    assert document["solver"]["status"] == "optimal" and document["chosen"]["cost_usd_per_mtok"] is None


def test_plan_is_deterministic_and_ranks_best_first() -> None:
    first = hwsim.plan("llama-3.1-8b", "dgx-h100", devices=4, slo="ttft=1s,tpot=30ms").document
    again = hwsim.plan("llama-3.1-8b", "dgx-h100", devices=4, slo={"ttft": 1.0, "tpot": 0.03}).document
    assert json.dumps(first) == json.dumps(again)
    rates = [row["tokens_per_s_device"] for row in first["ranking"]]
    assert rates == sorted(rates, reverse=True)
    assert first["ranking"][0] == first["chosen"]
    assert all(row["ttft_s"] <= 1.0 and row["tpot_s"] <= 0.03 for row in first["ranking"])
    c = first["considered"]
    assert c["feasible"] + sum(c["failed"].values()) == c["legal"]
    assert "proved best" in str(hwsim.plan("llama-3.1-8b", "dgx-h100", devices=4))


@pytest.mark.parametrize(
    ("hardware", "options", "text"),
    [
        ("dgx-h100", {"devices": 4}, "short on each device"),
        ("dgx-h100-x4", {"slo": "tpot=1ms", "devices": 32}, "no layout keeps tpot <= 1 ms"),
        ("dgx-h100-x4", {"slo": "ttft=1ms", "devices": 32}, "no layout keeps ttft <= 1 ms"),
    ],
)
def test_infeasible_names_the_limit_and_what_is_missing(hardware: str, options: dict[str, Any], text: str) -> None:
    with pytest.raises(InfeasibleError, match=text) as error:
        hwsim.plan("llama-3.1-405b", hardware, weights="fp8", **options) if "slo" in options else hwsim.plan(
            "llama-3.1-405b", hardware, **options
        )
    assert error.value.exit_code == 3
    assert next(iter(error.value.budget.values())) > 0


def test_tensor_groups_can_be_kept_narrow() -> None:
    found = hwsim.plan("llama-3.1-8b", "dgx-h100", devices=8, max_tp=2, objective="latency").document
    assert max(row["tp"] for row in found["ranking"]) == 2
    assert found["considered"]["illegal"]["tp above the limit asked for"] > 0


def test_both_limits_together_can_be_what_fails() -> None:
    with pytest.raises(InfeasibleError, match="among layouts that keep the ttft limit"):
        hwsim.plan("llama-3.1-8b", "dgx-h100", devices=8, slo="ttft=30ms,tpot=2.6ms", batch=(16,))


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"devices": 9}, InputError),
        ({"devices": 0}, InputError),
        ({"objective": "speed"}, UnknownNameError),
        ({"slo": "ttft=0s"}, InputError),
        ({"slo": "tpop=1s"}, UnknownNameError),
        ({"slo": "ttft=12"}, InputError),
        ({"batch": (0,)}, InputError),
        ({"mapper": "tiling"}, InputError),
        ({"mapper": "nothing-like-it"}, UnknownNameError),
        ({"tp": 2}, InputError),
        ({"max_tp": 0}, InputError),
        ({"budget": "-1s"}, InputError),
    ],
)
def test_bad_wishes_are_refused(options: dict[str, Any], kind: type[HwsimError]) -> None:
    with pytest.raises(kind):
        hwsim.plan("llama-3.1-8b", "dgx-h100", **options)


def test_cli_table_json_and_exit_codes() -> None:
    runner = CliRunner()
    base = ["map", "llama-3.1-8b", "--hw", "dgx-h100", "--mapper", "parallelism", "--devices", "2"]
    table = runner.invoke(app, base)
    assert table.exit_code == 0, table.output
    assert "legal layouts" in table.output
    assert "proved best" in table.output
    document = json.loads(runner.invoke(app, [*base, "-f", "json", "--objective", "latency"]).output)
    assert document["schema"] == "hwsim/parallelism@1"
    assert document["objective"] == "latency"
    tight = runner.invoke(app, [*base, "--slo", "tpot=1us"])
    assert isinstance(tight.exception, InfeasibleError) or tight.exit_code == 3
