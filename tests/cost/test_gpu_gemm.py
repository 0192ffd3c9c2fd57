"""GEMM, vector and collective models: laws, limits, exact cases, scalars against arrays."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsim.cost.gpu import collective, gemm, vector
from hwsim.errors import InputError
from hwsim.ir.platform import Link
from tests.cost.gpus import A100, H100

side = st.integers(1, 16384)
DTYPES = ["bf16", "fp8", "fp8_blk", "int8", "bf16+int4", "fp32"]


def time_of(m, n, k, dtype="bf16", facts=H100, protocol="engine", batch=1, **changes):
    facts = replace(facts, tensor_flop_per_s={"int8": 1979e12, **facts.tensor_flop_per_s})
    columns = {"batch": batch, "m": m, "n": n, "k": k}
    return gemm.gemm_time_s(columns, facts, f"{dtype}@{protocol}", {**gemm.FAMILY.start(), **changes})


@given(side, side, side, st.sampled_from(DTYPES))
def test_cold_gemm_never_beats_the_datasheet(m, n, k, dtype):
    act, _, weight = dtype.partition("+")
    peak = {"bf16": 989e12, "fp8": 1979e12, "fp8_blk": 1979e12, "int8": 1979e12, "fp32": 67e12}[act]
    floor = max(2.0 * m * n * k / peak, n * k * gemm.BYTES[weight or act] / 3350e9)
    assert time_of(m, n, k, dtype, power_eff=1.0, hbm_eff=1.0).time_s >= floor * (1 - 1e-9)


@given(side, side, side, st.sampled_from(DTYPES))
def test_faster_memory_and_math_never_slow_a_gemm(m, n, k, dtype):
    base = time_of(m, n, k, dtype).time_s
    faster = replace(H100, dram_bytes_per_s=2 * H100.dram_bytes_per_s)
    assert time_of(m, n, k, dtype, faster).time_s <= base * (1 + 1e-9)
    stronger = replace(H100, tensor_flop_per_s={d: 2 * v for d, v in H100.tensor_flop_per_s.items()})
    assert time_of(m, n, k, dtype, stronger).time_s <= base * (1 + 1e-9)


@given(st.integers(8, 8192), side, side, st.integers(2, 4))
def test_more_rows_never_take_much_less(m, n, k, factor):
    # choices of tile and split may gain a little when they change, never more than the fix-up of a split
    small, large = time_of(m, n, k).time_s, time_of(factor * m, n, k).time_s
    assert large >= small - 2.6e-6


def test_arrays_equal_scalars():
    rng = np.random.default_rng(1)
    m, n, k = (rng.integers(1, 9000, 64).astype(float) for _ in range(3))
    for dtype in DTYPES:
        together = time_of(m, n, k, dtype, protocol="graph").time_s
        alone = [float(time_of(a, b, c, dtype, protocol="graph").time_s) for a, b, c in zip(m, n, k, strict=True)]
        assert np.allclose(together, alone, rtol=1e-13)


def test_device_facts_may_be_arrays():
    sms = np.array([66.0, 132.0])
    both = time_of(np.full(2, 4096.0), 4096.0, 4096.0, facts=replace(H100, sms=sms)).time_s
    assert np.isclose(both[1], time_of(4096, 4096, 4096).time_s)
    assert both[0] != both[1]


def test_parts_explain_the_time():
    large = time_of(8192, 8192, 8192)
    assert large.parts_s["compute"] > 0.8 * large.time_s
    thin = time_of(1, 16384, 16384)
    assert thin.parts_s["hbm"] > 0.7 * thin.time_s
    tiny = time_of(1, 128, 128)
    assert tiny.parts_s["launch"] > 0.8 * tiny.time_s


def test_replayed_small_weights_come_from_cache_and_engines_weights_do_not():
    assert time_of(1, 1024, 1024, protocol="graph").parts_s["hbm"] < 0.2 * time_of(1, 1024, 1024).parts_s["hbm"]


def test_quantization_is_part_of_low_precision_calls():
    def extra(quant_bytes):
        return float(time_of(8192, 1024, 4096, "fp8", quant_bytes=quant_bytes).time_s)

    assert np.isclose(extra(6.0) - extra(3.0), extra(9.0) - extra(6.0))
    assert extra(6.0) > extra(3.0)


def test_wave_quantization_costs_more_the_harder_it_is():
    m = 128 * 133  # one block more than a wave of 128 x 256 tiles
    soft, hard = (time_of(m, 256, 16384, hardness=q).time_s for q in (0.0, 1.0))
    assert hard > 1.05 * soft


def test_a100_has_no_fp8():
    with pytest.raises(InputError, match="fp8"):
        gemm.gemm_time_s({"batch": 1, "m": 8, "n": 8, "k": 8}, A100, "fp8@graph", gemm.FAMILY.start())


def test_kernel_classes_and_sites():
    columns = {
        "dtype_act": ["bf16", "bf16", "fp16", "fp32"],
        "dtype_weight": ["bf16", "int4", "fp16", "fp32"],
        "backend": ["trtllm", "trtllm", "vidur-sarathi", "neusight-torch-eager"],
        "batch": np.array([1.0, 1.0, 1.0, 4.0]),
        "m": np.array([1.0, 2.0, 3.0, 4.0]),
        "n": np.full(4, 64.0),
        "k": np.full(4, 32.0),
    }
    assert gemm.kernel_class(columns).tolist() == ["bf16@graph", "bf16+int4@graph", "fp16@kineto", "fp32@eager"]
    assert gemm.site(columns).tolist() == ["64/32", "64/32", "64/32", "4/4/64/32"]


def vector_time(rows, cols, op="rmsnorm", facts=H100, **changes):
    size = 2.0 * rows * cols
    columns = {"rows": rows, "cols": cols, "bytes_read": size, "bytes_written": size}
    return vector.vector_time_s(columns, facts, f"{op}@engine", {**vector.FAMILY.start(), **changes}).time_s


@given(st.integers(1, 100_000), st.integers(64, 16384), st.sampled_from(["rmsnorm", "add", "softmax", "silu_mul"]))
def test_cold_vector_kernel_never_beats_dram(rows, cols, op):
    assert vector_time(rows, cols, op, hbm_eff=1.0) >= 4.0 * rows * cols / 3350e9


@given(st.integers(1, 4096), st.integers(64, 16384), st.integers(2, 5))
def test_more_rows_never_take_less_in_vector_kernels(rows, cols, factor):
    assert vector_time(factor * rows, cols) >= vector_time(rows, cols) * (1 - 1e-12)


def test_one_long_row_waits_for_its_one_block():
    # 22016 elements at one element a clock: 11 us on one SM whatever the memory does
    assert vector_time(1, 22016, "silu_mul", issue_per_clk=1.0) > 11e-6
    assert vector_time(132, 22016, "silu_mul", issue_per_clk=1.0) < 1.3 * vector_time(
        1, 22016, "silu_mul", issue_per_clk=1.0
    )


NVLINK = replace(H100, link=Link("nvlink", 450e9, topology="switch", in_network_reduction=True))


def collective_time(size, ranks, op="all_reduce", transport="nvlink", facts=NVLINK, **changes):
    columns = {"bytes": size, "n_gpus": ranks}
    return collective.collective_time_s(
        columns, facts, f"{op}@{transport}", {**collective.FAMILY.start(), **changes}
    ).time_s


@given(st.integers(1, 10**9), st.integers(2, 8), st.sampled_from(collective.OPS))
def test_ring_collectives_never_beat_the_wire(size, ranks, op):
    ring = replace(NVLINK, link=replace(NVLINK.link, in_network_reduction=False))
    wire = float(collective.wire_bytes(op, np.float64(size), np.float64(ranks))) / 450e9
    assert collective_time(size, ranks, op, facts=ring, link_eff=1.0, small_eff=1.0) >= wire * (1 - 1e-9)


@given(st.integers(1, 10**9), st.integers(2, 8))
def test_in_switch_reduction_never_slows(size, ranks):
    plain = replace(NVLINK, link=replace(NVLINK.link, in_network_reduction=False))
    assert collective_time(size, ranks) <= collective_time(size, ranks, facts=plain) * (1 + 1e-12)


def test_wire_bytes_of_each_operation():
    size, ranks = np.float64(800.0), np.float64(8.0)
    expected = {
        "all_reduce": 1400.0,
        "all_gather": 700.0,
        "reduce_scatter": 700.0,
        "all_to_all": 700.0,
        "send_recv": 800.0,
    }
    assert {op: float(collective.wire_bytes(op, size, ranks)) for op in collective.OPS} == expected


def test_transport_follows_from_topology():
    columns = {
        "topology": [
            "single-node-nvswitch",
            "single-node-pcie",
            "vidur-a100_dgx-dpn2",
            "vidur-a40_pairwise_nvlink-dpn4",
        ],
        "backend": ["nccl", "nccl", "nccl-torch", "nccl-torch"],
        "n_gpus": np.array([8.0, 4.0, 4.0, 4.0]),
    }
    assert collective.transport(columns).tolist() == ["nvlink", "pcie", "network", "pcie-skewed"]


def test_rings_leave_a_node_through_its_ports() -> None:
    """Large messages: wire bytes over as many ports as ranks, until the node has no more."""
    parameters = {**collective.FAMILY.start(), "link_eff": 1.0, "own_share": 0.0, "ports": 4.0}

    def time(local: int) -> float:
        columns = {"bytes": np.float64(1e12), "n_gpus": np.float64(2 * local), "topology": f"x-dpn{local}"}
        return float(collective.collective_time_s(columns, NVLINK, "all_reduce@network", parameters).time_s[0])

    port = float(collective.link_bytes_per_s(NVLINK, "network"))
    for local, ports in ((1, 1), (2, 2), (4, 4), (8, 4)):
        ranks = 2 * local
        assert time(local) == pytest.approx(2 * (ranks - 1) / ranks * 1e12 / (ports * port), rel=1e-3)


def test_adapters_fill_their_slot() -> None:
    assert collective.link_bytes_per_s(replace(NVLINK, host_bytes_per_s=32e9), "network") == 25e9
    assert collective.link_bytes_per_s(replace(NVLINK, host_bytes_per_s=64e9), "network") == 50e9
    assert collective.link_bytes_per_s(replace(NVLINK, host_bytes_per_s=128e9), "network") == 50e9
