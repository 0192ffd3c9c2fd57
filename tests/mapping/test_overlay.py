"""Builds of an FPGA overlay: within the budget, never slower than the file's, as fast as the best of all legal ones."""

from __future__ import annotations

import numpy as np
import pytest

import hwsim
from hwsim.errors import CheckFailedError, InfeasibleError
from hwsim.ir.mapped import SolverReport
from hwsim.mapping import OverlayDecision, OverlayProblem, best_overlay
from hwsim.mapping.overlay.problem import checked


def toy(budget: float) -> OverlayProblem:
    dsp = np.array([10.0, 20.0, 20.0, 40.0])
    return OverlayProblem(
        {"mm_macs": np.array([1, 2, 3, 4])}, np.array([4.0, 2.0, 3.0, 1.0]), {"dsp": dsp}, {"dsp": budget}, 0
    )


def test_the_fastest_build_within_the_budget_is_chosen() -> None:
    assert [best_overlay(toy(b)).chosen for b in (15, 25, 50)] == [0, 1, 3]


def test_no_build_within_the_budget_names_the_resource() -> None:
    with pytest.raises(InfeasibleError, match="5 more of dsp"):
        best_overlay(toy(5))
    with pytest.raises(InfeasibleError, match="more of dsp"):
        checked(toy(15), OverlayDecision(3, best_overlay(toy(50)).report))


def test_a_claim_that_is_not_its_build_is_refused() -> None:
    with pytest.raises(CheckFailedError):
        checked(toy(50), OverlayDecision(0, SolverReport("x", "", "optimal", 1.0, 1.0, 0.0, 0.0)))


@pytest.mark.parametrize("hardware", ["u280", "vhk158"])
@pytest.mark.parametrize("model", ["opt-125m", "llama-2-7b"])
def test_an_fpga_is_never_slower_with_a_mapped_build(hardware: str, model: str) -> None:
    own, mapped = (hwsim.evaluate(model, hardware, prompt=256, output=32, mapper=m) for m in ("roofline", "fpga"))
    assert mapped.ttft_s <= own.ttft_s and mapped.tpot_s <= own.tpot_s
    device = hwsim.evaluate(model, hardware, prompt=256, output=32).estimate.platform.device
    assert float(mapped.dsp_used) <= float(device.units)
    task = next(t for t in mapped.document["phases"][0]["tasks"] if t["kind"] == "gemm")
    assert task["mapping"]["needs"]["onchip_bytes"] <= float(device.memories[0].size_bytes)


def test_fewer_slices_make_a_smaller_and_slower_build() -> None:
    whole = hwsim.evaluate("opt-125m", "u280", prompt=256, output=32, mapper="fpga")
    device = whole.estimate.platform.device
    section = {**device.extra["fpga"], "mm_macs": 1024, "mv_macs": 512}
    small = device.with_(units=2000, extra={**device.extra, "fpga": section})
    few = hwsim.evaluate("opt-125m", small, prompt=256, output=32, mapper="fpga")
    assert float(few.dsp_used) <= 2000 and few.ttft_s > whole.ttft_s
