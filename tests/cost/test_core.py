"""Cost core: peaks, collectives, energy, money, budget - exact values and laws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsim.cost import collectives, energy, money
from hwsim.cost.memory import PerSequence, budget
from hwsim.cost.peaks import compute_path, native_16bit
from hwsim.cost.registry import FAMILIES, cost_function
from hwsim.errors import InfeasibleError, UnknownNameError
from hwsim.ir.platform import ComputeUnit, Device, Link, Memory, Platform, Power, Price

RING = Link("nvlink", 300e9, 2e-6, "switch")


def device(*compute: ComputeUnit) -> Device:
    units = compute or (ComputeUnit("tensor", "bf16", 100e12), ComputeUnit("vector", "fp32", 10e12))
    return Device("d", "gpu", "D", units, (Memory("hbm", 80e9, 2e12, 2e12),), (RING,), Power(400.0, 50.0))


def platform(count: int = 8, node: int = 8, network: Link | None = None) -> Platform:
    return Platform("p", device(), count, node, RING, network)


def test_a_dtype_without_units_is_widened_and_said_so() -> None:
    assert not compute_path(device(), "bf16").widened
    for dtype in ("fp8", "int8", "int4", "fp4"):
        path = compute_path(device(), dtype)
        assert path.widened and path.dtype == "bf16" and path.peak_flop_per_s == 100e12
    assert compute_path(device(), "fp32").unit == "vector"
    assert native_16bit(device()) == "bf16"


def test_no_path_at_all_is_infeasible() -> None:
    with pytest.raises(InfeasibleError, match="no compute path for bf16"):
        compute_path(device(ComputeUnit("tensor", "int8", 1e12)), "bf16")


@pytest.mark.parametrize(
    ("op", "ranks", "share"),
    [
        ("all_reduce", 4, 1.5),
        ("all_gather", 4, 0.75),
        ("reduce_scatter", 8, 0.875),
        ("all_to_all", 2, 0.5),
        ("send_recv", 2, 1.0),
    ],
)
def test_wire_bytes_are_the_textbook_ones(op: str, ranks: int, share: float) -> None:
    assert collectives.wire_bytes(op, 1e6, ranks) == pytest.approx(share * 1e6)


@given(st.sampled_from(collectives.OPS), st.floats(1, 1e10), st.integers(2, 8))
def test_a_collective_takes_at_least_its_wire_time(op: str, size: float, ranks: int) -> None:
    floor = collectives.wire_time_s(op, size, ranks, platform())
    assert 0 < floor <= collectives.time_s(op, size, ranks, platform())
    assert collectives.time_s(op, size * 1.1, ranks, platform()) >= collectives.time_s(op, size, ranks, platform())


def test_one_rank_needs_no_link_and_many_need_a_network() -> None:
    assert collectives.time_s("all_reduce", 1e6, 1, platform()) == 0
    with pytest.raises(InfeasibleError, match="leaves the node"):
        collectives.time_s("all_reduce", 1e6, 16, platform(16))
    alone = Platform("p", device().with_(links=()), 2, 8)
    with pytest.raises(InfeasibleError, match="no link"):
        collectives.time_s("all_reduce", 1e6, 2, alone)


def test_across_nodes_costs_more_than_inside() -> None:
    network = Link("ib", 25e9, 5e-6)
    inside = collectives.time_s("all_reduce", 1e8, 8, platform())
    across = collectives.time_s("all_reduce", 1e8, 16, platform(16, 8, network))
    assert across > inside
    # two reduce-scatters' worth inside, while an eighth of the message goes around the two nodes
    wire = max(2 * (7 / 8) * 1e8 / 300e9, (1e8 / 8) / 25e9)
    assert collectives.wire_time_s("all_reduce", 1e8, 16, platform(16, 8, network)) == pytest.approx(wire)


def test_one_ring_leaves_the_node_by_all_its_ports() -> None:
    """NCCL tests' bus rate of a ring is that of its narrowest cut: 8 ports of 2 GB/s, or one device inside."""
    slow, fast = Link("eth", 2e9, 0.0), Link("ib", 100e9, 0.0)
    up = RING.__class__("nvlink", 300e9, 0.0)
    for link, cut in ((slow, 16e9), (fast, 300e9)):
        for op, share in (("all_reduce", 30 / 16), ("all_gather", 15 / 16), ("reduce_scatter", 15 / 16)):
            wire = collectives.ring_across_s(op, 1e9, 16, 8, up, link)
            assert wire == pytest.approx(share * 1e9 / cut)
    assert collectives.ring_across_s("send_recv", 1e9, 16, 8, up, slow) == pytest.approx(0.5)
    # a hierarchy would send (30/16) / (2/2) times fewer bytes over two nodes
    floor = collectives.wire_time_s("all_reduce", 1e9, 16, platform(16, 8, slow))
    assert collectives.ring_across_s("all_reduce", 1e9, 16, 8, up, slow) / floor == pytest.approx(30 / 16)


def test_reduction_in_the_switch_spares_the_network_too() -> None:
    network = Link("ib", 2e9, 0.0)
    smart = Link("nvlink", 300e9, 0.0, "switch", in_network_reduction=True)
    assert collectives.ring_across_s("all_reduce", 1e9, 16, 8, smart, network) == pytest.approx(1e9 / 16e9)


@given(st.sampled_from(collectives.OPS), st.floats(1, 1e10), st.integers(2, 8), st.floats(1e9, 1e12))
def test_across_nodes_a_collective_takes_at_least_its_wire_time(op: str, size: float, nodes: int, port: float) -> None:
    wide = platform(64, 8, Link("ib", port, 1e-6))
    floor, found = (f(op, size, 8 * nodes, wide) for f in (collectives.wire_time_s, collectives.time_s))
    assert 0 < floor <= found * (1 + 1e-12)
    assert collectives.time_s(op, size * 1.1, 8 * nodes, wide) >= found
    faster = platform(64, 8, Link("ib", 2 * port, 1e-6))
    assert collectives.time_s(op, size, 8 * nodes, faster) <= found


def test_arrays_that_straddle_nodes_agree_with_scalars() -> None:
    wide, ranks = platform(64, 8, Link("ib", 25e9, 1e-6)), np.array([2, 4, 8, 16, 64])
    for op in collectives.OPS:
        for function in (collectives.time_s, collectives.wire_time_s):
            grid = function(op, 1e7, ranks, wide)
            np.testing.assert_allclose(grid, [function(op, 1e7, int(r), wide) for r in ranks], rtol=1e-12)


def test_reduction_in_the_switch_halves_the_wire() -> None:
    smart = Link("nvlink", 300e9, 2e-6, "switch", in_network_reduction=True)
    assert collectives.link_time_s("all_reduce", 1e9, 8, smart) < collectives.link_time_s("all_reduce", 1e9, 8, RING)


def test_energy_falls_with_the_node_and_rises_with_the_width() -> None:
    old, new = device().with_(process_m=16e-9), device().with_(process_m=4e-9)
    assert energy.j_per_flop(old, "bf16") > energy.j_per_flop(new, "bf16")
    assert (
        energy.j_per_flop(device(), "fp32") > energy.j_per_flop(device(), "bf16") > energy.j_per_flop(device(), "int8")
    )
    given_file = device(ComputeUnit("tensor", "bf16", 1e12, 3e-12))
    assert energy.j_per_flop(given_file, "bf16") == 3e-12


@pytest.mark.parametrize(("name", "pj_per_bit"), [("hbm3e", 12.4), ("gddr6x", 14.5), ("lpddr5", 8.0), ("ddr5", 20.3)])
def test_memory_energy_goes_by_the_technology_in_the_name(name: str, pj_per_bit: float) -> None:
    memory = Memory(name, 1e9, 1e11, 1e11)
    assert energy.j_per_byte(device().with_(memories=(memory,)), name) == pytest.approx(pj_per_bit * 8e-12)


def test_bill_of_rented_and_of_bought_hardware() -> None:
    rented = Price("d", 3.6 / 3600, "2026-01-01", "x")
    assert money.bill_usd(rented, 2, 1800.0, 1e9) == pytest.approx(3.6)
    bought = Price("d", 1e-4, "2026-01-01", "x", "bought", 1e4, 0.36 / 3.6e6)
    assert money.bill_usd(bought, 1, 1000.0, 3.6e6) == pytest.approx(0.1 + 0.36)
    assert money.usd_per_mtok(2.0, 4e6) == 0.5


@given(
    st.floats(1e9, 1e12),
    st.floats(0, 1e12),
    st.floats(0, 1e9),
    st.floats(0, 1e9),
    st.integers(1, 20_000),
)
def test_the_largest_batch_fits_and_the_next_does_not(
    capacity: float, weights: float, cache: float, step: float, tokens: int
) -> None:
    one = PerSequence(cache, step, tokens)

    def fits(batch: float) -> bool:
        return bool(budget(capacity, weights, one, batch).fits)

    most = budget(capacity, weights, one, 1).max_batch
    if most and most < 10**8 and cache > 1:
        assert fits(most * (1 - 1e-12)) and not fits((most + 1) * (1 + 1e-12) + 1e-6)
    if most == 0:
        assert not fits(1 + 1e-9) or weights + cache + step == pytest.approx(capacity * 0.9)


def test_every_family_of_the_registry_loads() -> None:
    for kind in FAMILIES:
        assert callable(cost_function(kind)) and callable(cost_function(kind, "datasheet"))
    with pytest.raises(UnknownNameError, match="gpu"):
        cost_function("gpuu")


def test_arrays_and_scalars_agree_in_collectives() -> None:
    sizes, ranks = np.array([1e3, 1e6, 1e9]), np.array([2, 4, 8])
    grid = collectives.time_s("all_reduce", sizes, ranks, platform())
    for index in range(3):
        assert grid[index] == pytest.approx(
            collectives.time_s("all_reduce", float(sizes[index]), int(ranks[index]), platform())
        )
