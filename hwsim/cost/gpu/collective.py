"""Collectives: a low-latency protocol for small messages, a bandwidth protocol for large ones, in-switch reduction.

Small: latency a step + wire bytes at the flag-checked rate. Large: start-up + wire bytes at the link's sustained rate
+ the rank's own share through memory. NCCL switches by size; a one-shot kernel takes the smaller time.
See docs/formulas/collectives.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hwsim.cost.gpu.facts import Facts
from hwsim.cost.gpu.family import Array, Column, Columns, Family, KernelTime, Parameter, join, names
from hwsim.errors import InputError

OPS = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "send_recv")
ETHERNET_BYTES_PER_S = 25e9  # the reference that efficiencies without RDMA are relative to
ADAPTER_BYTES_PER_S = 50e9  # 400 Gbit/s, whatever the slot: the fastest that was measured
ADAPTER_SHARE = 25 / 32  # an adapter a GPU: 200 Gbit/s in a PCIe 4 slot of 32 GB/s, 400 Gbit/s in a PCIe 5 slot
SWITCH_WIDTH = 0.25  # natural-log width of the protocol switch: NCCL changes over within a factor of about two
SWITCH_RANKS = 3  # in-switch reduction needs more than a pair

P = Parameter
PARAMETERS = (
    P("launch_kcycles", "launch and first hop", "1000 cycles", 12.0, 0.5, 200),
    P("step_us", "one more hop of the ring or peer of the exchange", "us", 0.6, 0.005, 20),
    P("small_eff", "share of the link rate with the low-latency protocol or the one-shot kernel", "1", 0.3, 0.005, 1.0),
    P("switch_bytes", "wire bytes at which the bandwidth protocol takes over", "B", 8e5, 2e3, 2e7),
    P("start_kcycles", "start-up of the bandwidth protocol: channels fill", "1000 cycles", 25.0, 0.1, 500),
    P("link_eff", "sustained share of the link rate of one direction", "1", 0.75, 0.01, 1.0),
    P("own_share", "cost of a byte of the rank's own shard, relative to a wire byte", "1", 0.4, 0.0, 2.0, "linear"),
    P("switch_eff", "sustained share with reduction in the switch", "1", 0.64, 0.1, 1.0, classes=("all_reduce",)),
    P("ports", "adapters through which a ring leaves a node, at most one a rank", "1", 4.0, 1.0, 8.0, "linear",
      classes=("network",)),
)  # fmt: skip


def wire_bytes(op: str, size: Array, ranks: Array) -> Array:
    """Bytes a rank sends with bandwidth-optimal algorithms (nccl-tests "size" conventions)."""
    if op == "send_recv":
        return size
    return size * (ranks - 1.0) / ranks * (2.0 if op == "all_reduce" else 1.0)


def hops(op: str, ranks: Array) -> Array:
    """Serial steps beyond the first."""
    if op == "send_recv":
        return np.zeros_like(ranks)
    return 2.0 * (ranks - 1.0) - 1.0 if op == "all_reduce" else ranks - 2.0


def collective_time_s(columns: Columns, f: Facts, kernel_class: str, p: Mapping[str, Any]) -> KernelTime:
    """Seconds of one collective for rows of one class ``op@transport``. columns: bytes, n_gpus.

    Raises InputError where the device has no link of that transport.
    """
    op, _, transport = kernel_class.partition("@")
    transport = transport.removesuffix("-skewed")
    size, ranks = (np.asarray(columns[c], dtype=np.float64) for c in ("bytes", "n_gpus"))
    rate = link_bytes_per_s(f, transport)
    rings: Any = 1.0  # the bandwidth protocol fills once a rank where each hop of a ring may be one between nodes
    if transport == "network":
        rate, rings = rate * np.minimum(_ranks_of_a_node(columns), p["ports"]), ranks / 2.0
    wire, steps = wire_bytes(op, size, ranks), hops(op, ranks)
    fixed = p["launch_kcycles"] * 1e3 / f.clock_hz + p["step_us"] * 1e-6 * steps
    one_shot = transport == "oneshot"
    small_wire = size * (ranks - 1.0) if one_shot else wire
    small = small_wire / (rate * p["small_eff"])
    large = p["start_kcycles"] * 1e3 / f.clock_hz * rings
    switch = op == "all_reduce" and transport != "network" and f.link is not None and f.link.in_network_reduction
    large = large + _large_s(op, p, size, ranks, rate, switch)
    if one_shot:
        move = np.minimum(small, large)
    else:
        share = 1.0 / (1.0 + (wire / p["switch_bytes"]) ** (1.0 / SWITCH_WIDTH))
        move = share * small + (1.0 - share) * large
    launch = np.broadcast_to(fixed, move.shape)
    return KernelTime(launch + move, {"link": move, "launch": launch})


def _large_s(op: str, p: Mapping[str, Any], size: Array, ranks: Array, rate: Any, switch: bool) -> Array:
    """Ring at the sustained rate, or the reduction in the switch where there is one and it is faster."""
    wire = wire_bytes(op, size, ranks)
    own = 0.0 * size if op == "send_recv" else size / ranks
    ring = (wire + p["own_share"] * own) / (rate * p["link_eff"])
    if not switch:
        return np.asarray(ring)
    in_switch = size * (1.0 + 1.0 / ranks) / (rate * p["switch_eff"])
    return np.where(ranks >= SWITCH_RANKS, np.minimum(ring, in_switch), ring)


def link_bytes_per_s(f: Facts, transport: str) -> Any:
    """One-direction rate of the transport. Raises InputError where the device has none."""
    if transport in ("nvlink", "bridge", "oneshot"):
        if f.link is not None:
            return f.link.bandwidth_bytes_per_s
        transport = "pcie"
    if transport == "pcie":
        return f.host_bytes_per_s
    if transport == "network":
        return np.minimum(f.host_bytes_per_s * ADAPTER_SHARE, ADAPTER_BYTES_PER_S)
    if transport == "ethernet":
        return ETHERNET_BYTES_PER_S
    raise InputError(f"no transport named {transport!r}", fix="nvlink, oneshot, pcie or network")


def kernel_class(columns: Columns) -> Array:
    """``op@transport``; the transport follows from topology, ranks and backend."""
    return np.char.add(np.char.add(names(columns["op"]), "@"), transport(columns))


def transport(columns: Columns) -> Array:
    """nvlink, pcie or network by topology (``...-dpnN``: N devices a node); oneshot for custom all-reduce kernels."""
    topology, backend = names(columns["topology"]), names(columns["backend"])
    ranks = np.atleast_1d(np.asarray(columns["n_gpus"], dtype=np.float64))
    per_node = np.array([_per_node(str(t)) for t in np.unique(topology)])[np.unique(topology, return_inverse=True)[1]]
    pairs = (np.char.find(topology, "pairwise") >= 0) & (ranks > 2)
    pcie = pairs | (np.char.find(topology, "pcie") >= 0)
    custom = np.char.find(backend, "custom") >= 0
    vidur = np.char.find(topology, "vidur") >= 0
    bridge = np.char.find(topology, "pairwise") >= 0
    skewed = np.where(pcie, "pcie-skewed", np.where(bridge, "bridge-skewed", "nvlink-skewed"))
    local = np.where(vidur, skewed, np.where(pcie, "pcie", "nvlink"))
    far = np.where(bridge, "ethernet", "network")  # pairwise boards sit in nodes without RDMA adapters
    return np.select([ranks > per_node, custom & ~pcie], [far, "oneshot"], local)


def _ranks_of_a_node(columns: Columns) -> Array:
    """Ranks on one node of each row; 1 where the topology does not say."""
    kinds, which = np.unique(names(columns.get("topology", "")), return_inverse=True)
    local = np.array([_per_node(str(kind)) for kind in kinds])[which]
    return np.where(np.isfinite(local), local, 1.0)


def _per_node(topology: str) -> float:
    _, found, tail = topology.rpartition("-dpn")
    return float(tail) if found and tail.isdigit() else np.inf


FALLBACKS = {
    "all_reduce": ("reduce_scatter", "all_gather"),
    "all_gather": ("reduce_scatter",), "reduce_scatter": ("all_gather",),
    "all_to_all": ("all_gather",), "send_recv": ("all_to_all", "all_gather"),
}  # fmt: skip

FAMILY = Family(
    name="collective",
    signature=("op", "n_gpus", "bytes"),
    columns=(
        Column("op", "name", known=OPS),
        Column("n_gpus", minimum=2),
        Column("bytes"),
        Column("topology", "name", default="single-node-nvswitch"),
        Column("backend", "name", default="nccl"),
    ),
    parameters=PARAMETERS,
    kernel_class=kernel_class,
    site=lambda c: join(c["op"], c["bytes"]),
    time=collective_time_s,
    flop=lambda c: np.zeros(np.shape(c["bytes"])),
    traffic_bytes=lambda c: np.asarray(c["bytes"], dtype=np.float64),
    compute_dtype=lambda c: np.full(len(names(c["op"])), "fp32"),
    fallbacks=FALLBACKS,
)
