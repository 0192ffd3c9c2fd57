"""Donors and the adapter the engines call: brackets, transfer, arrays, nothing silent."""

from dataclasses import replace

import numpy as np
import pytest

from hwsim.cost.gpu import kernel_time, task_cost
from hwsim.cost.gpu.donors import choose, penalty
from hwsim.cost.gpu.registry import families, family, family_of
from hwsim.errors import InputError, UnknownNameError
from hwsim.frontends.formats import get_format
from hwsim.ir.mapped import Task
from hwsim.ir.workload import Operator, Tensor
from hwsim.schema.loader import load_hardware


def linear(m, n, k, act="bf16", weight="bf16", memory="hbm"):
    tensors = (Tensor("x", (m, k), get_format(act)), Tensor("w", (n, k), get_format(weight), "weight"))
    out = (Tensor("y", (m, n), get_format("bf16")),)
    dims = {"batch": 1, "m": m, "n": n, "k": k}
    compute = get_format(act).compute
    operator = Operator("linear", "gemm", "linear", dims, 2 * m * n * k, compute, tensors, out)
    traffic = {memory: tensors[1].stored_bytes}
    return Task("linear", operator, 1, {compute: operator.flop}, traffic)


def platform(name="a100-sxm4-80gb"):
    return load_hardware(name).platform


@pytest.mark.parametrize(
    "name", ["a100-sxm4-80gb", "h100-sxm", "h200-sxm", "b200-sxm", "l40s", "t4", "v100-pcie-16gb", "mi250"]
)
@pytest.mark.parametrize("m", [1, 48, 4096])
def test_bracket_holds_on_every_gpu(name, m):
    where = platform(name)
    act = "bf16" if where.device.peak("bf16") is not None else "fp16"
    cost = task_cost(linear(m, 4096, 4096, act, act, where.device.main_memory.name), where)
    ends = [cost.floor_s, cost.low_s, cost.time_s, cost.high_s, cost.ceiling_s]
    assert ends == sorted(ends)
    assert cost.low_s < cost.high_s
    assert set(cost.parts_s) == {"compute", "hbm", "l2", "launch"}


def test_arrays_of_scenarios_equal_scalars():
    m = np.array([1.0, 16.0, 512.0])
    together = task_cost(linear(m, 4096, 4096), platform())
    for i, value in enumerate(m):
        alone = task_cost(linear(value, 4096, 4096), platform())
        assert np.isclose(together.time_s[i], alone.time_s) and np.isclose(together.high_s[i], alone.high_s)


def test_weight_only_and_widened_formats_take_their_own_kernels():
    a100 = platform()
    assert "bf16+int4" in task_cost(linear(8, 4096, 4096, weight="int4-g128"), a100).model
    assert (
        "bf16+int8" in task_cost(linear(8, 4096, 4096, act="fp8", weight="fp8"), a100).model
    )  # no fp8 units: expanded
    assert "fp8@" in task_cost(linear(8, 4096, 4096, act="fp8", weight="fp8"), platform("h100-sxm")).model


def test_without_calibration_the_generic_model_answers():
    where = platform()
    bare = where.with_(device=where.device.with_(calibration=None))
    assert kernel_time(linear(8, 512, 512), bare) is None
    assert task_cost(linear(8, 512, 512), bare).model == "generic"


def test_own_parameters_come_first_then_kin():
    gemm = family("gemm")
    own = choose(platform("h100-sxm").device.calibration, gemm, "bf16@graph")
    assert (own.donor, own.kernel_class, own.exact) == ("h100-sxm", "bf16@graph", True)
    kin = choose(platform("h200-sxm").device.calibration, gemm, "bf16@graph")
    assert (kin.donor, kin.exact) == ("h100-sxm", False)
    low, high = own.band(1e-4)
    kin_low, kin_high = kin.band(1e-4)
    assert kin_low <= low <= 1e-4 <= high <= kin_high
    assert choose(platform("l40s").device.calibration, gemm, "bf16@graph").donor == "a100-sxm4-80gb"


def test_penalties_prefer_protocols_to_formats():
    gemm = family("gemm")
    assert penalty(gemm, "bf16@graph", "bf16@graph") == 0.0
    assert 0 < penalty(gemm, "bf16@engine", "bf16@graph") < penalty(gemm, "bf16@engine", "bf16@eager")
    assert penalty(gemm, "bf16@graph", "bf16@eager") < penalty(gemm, "bf16@graph", "fp16@graph")
    assert penalty(gemm, "bf16@graph", "nonsense@graph") >= 100


def test_nothing_fitted_gives_start_values_and_a_wide_band():
    choice = choose(None, family("gemm"), "bf16@graph")
    low, high = choice.band(1.0)
    assert choice.donor == "" and low < 0.7 and high > 1.5


def test_bands_are_continuous_in_time():
    choice = choose(platform("h100-sxm").device.calibration, family("gemm"), "bf16@graph")
    times = np.geomspace(1e-6, 1e-1, 20_000)
    low, high = choice.band(times)
    assert np.max(np.abs(np.diff(np.log(high / times)))) < 1e-3
    assert np.max(np.abs(np.diff(np.log(low / times)))) < 1e-3


def test_families_are_found_by_columns():
    assert family_of(["gpu", "m", "n", "k", "dtype_act", "dtype_weight"]).name == "gemm"
    assert family_of(["rows", "cols", "bytes_read", "bytes_written", "op", "gpu"]).name == "vector"
    with pytest.raises(InputError, match="nearest is gemm"):
        family_of(["gpu", "m", "n", "kk", "dtype_act", "dtype_weight"])
    with pytest.raises(UnknownNameError, match="did you mean gemm"):
        family("gem")


@pytest.mark.parametrize("name", sorted(families()))
def test_parameters_are_documented_and_start_inside_their_bounds(name):
    parameters = families()[name].parameters
    assert len({p.name for p in parameters}) == len(parameters)
    for p in parameters:
        assert p.low <= p.start <= p.high and p.meaning and p.unit
        assert p.scale == "linear" or p.low > 0


def test_every_shipped_parameter_is_inside_its_bounds():
    from hwsim.schema.calibration import calibration_files

    for file in calibration_files():
        for name, entry in file.families.items():
            known = {p.name: p for p in family(name).parameters}
            for kernel_class in entry.classes.values():
                for key, value in kernel_class.parameters.items():
                    p = known[key]
                    assert p.low * (1 - 1e-3) <= value <= p.high * (1 + 1e-3), (file.name, name, key)


def test_extra_launches_of_a_task_cost_their_floor():
    one = linear(8, 512, 512)
    where = platform()
    three = replace(one, launches=3)
    extra = task_cost(three, where).time_s - task_cost(one, where).time_s
    assert np.isclose(extra, 2 * task_cost(one, where).parts_s["launch"])
