"""Collectives across nodes: the library's kernel inside a node, one ring through all ports, hops of a tree.

t = launch + min(max(inside, 2 w) + tree hops x h, max(inside, w) + ring steps x h), w = ring bytes / (ranks of a
node x port x e): the library takes the low-latency protocol (half of each word is a flag) or the bandwidth protocol,
whose steps each wait for the slowest hop. See docs/formulas/collectives.md.
Launch and move inside are those of the calibrated family; the ports are the cluster file's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from hwsim.cost import generic
from hwsim.cost.bracketed import bracketed, held
from hwsim.cost.collectives import links_of, ring_across_s
from hwsim.cost.gpu.adapters import has_peer_link
from hwsim.cost.gpu.collective import hops
from hwsim.cost.gpu.donors import choose
from hwsim.cost.gpu.facts import facts
from hwsim.cost.gpu.family import KernelTime
from hwsim.cost.gpu.registry import families
from hwsim.cost.roofline import dynamic_energy_j
from hwsim.ir.mapped import Task
from hwsim.ir.numbers import Num, plain
from hwsim.ir.platform import Link, Platform
from hwsim.ir.result import TaskCost

# Sustained share of a port's rate: send/receive between two H100 over 400 Gbit/s (calibrated class send_recv@network,
# public measurements of the Vidur project). One fabric; nothing better is published in the reference data.
PORT_EFFICIENCY: Final = 0.73
# A hop through the network instead of NVLink, small messages: adapter, switch and the proxy thread of the library.
# NCCL send/receive of 2 KB between nodes minus inside one: 16, 12, 17 and 8 us on four fabrics of the same source.
HOP_S: Final = 14e-6
LOW_LATENCY: Final = 2.0  # bytes on the wire for a byte of data: 4 of 8 are a flag (NCCL's LL protocol)


def task_cost(task: Task, platform: Platform) -> TaskCost | None:
    """Cost of one collective whose ranks span nodes (an array may hold some that do not: those take the generic law).

    None without a calibrated library inside the node. All-to-alls between many peers take the generic law too.
    """
    op, ranks, size = task.operator.op, task.operator.dims["ranks"], task.operator.dims["bytes"]
    if op == "all_to_all" or platform.device.calibration is None:
        return None
    inside = _inside(op, np.minimum(ranks, platform.node_size), size, platform)
    up, out = links_of(op, ranks, platform)
    if inside is None or out is None:
        return None
    wire = ring_across_s(op, size, ranks, platform.node_size, up, out, PORT_EFFICIENCY)
    wait, move = protocol_s(op, ranks, platform.node_size, wire, inside.parts_s["link"], out)
    far, near = np.asarray(ranks) > platform.node_size, generic.task_cost(task, platform)
    parts = {"link": move, "launch": inside.parts_s["launch"] * task.launches + wait}
    value = np.where(far, parts["link"] + parts["launch"], near.time_s)
    parts = {name: plain(np.where(far, part, near.parts_s.get(name, 0.0))) for name, part in parts.items()}
    energy = dynamic_energy_j(task, platform)
    cost = bracketed(value, parts, held(task, platform), generic.BAND, energy_j=energy, model="gpu/network")
    return replace(cost, ceiling_s=plain(np.maximum(cost.ceiling_s, near.ceiling_s)))


def protocol_s(op: str, ranks: Num, node_size: int, wire: Num, inside: Num, out: Link) -> tuple[Num, Num]:
    """(seconds of waiting, seconds of moving) of the faster protocol; `wire`, `inside`: seconds of the wires."""
    hop = np.maximum(out.latency_s, HOP_S)
    if op == "send_recv":
        return hop, wire
    few, all_steps = hop_count(op, ranks, node_size) * hop, (hops(op, np.asarray(ranks, dtype=np.float64)) + 1) * hop
    quick, bulk = np.maximum(inside, LOW_LATENCY * wire), np.maximum(inside, wire)
    first = quick + few <= bulk + all_steps
    return np.where(first, few, all_steps), np.where(first, quick, bulk)


def hop_count(op: str, ranks: Num, node_size: int) -> Num:
    """Hops between nodes one after another: up and down a tree for an all-reduce, around the nodes for its halves."""
    nodes = np.maximum(np.asarray(ranks) / node_size, 1)
    return 2 * np.ceil(np.log2(nodes)) if op == "all_reduce" else np.ceil(nodes - 1)


def _inside(op: str, local: Num, size: Num, platform: Platform) -> KernelTime | None:
    """Time of the library's kernel over the ranks of one node; its launch alone where each node has one."""
    device, family = platform.device, families()["collective"]
    kernel_class = f"{op}@{'nvlink' if has_peer_link(device) else 'pcie'}"
    choice = choose(device.calibration, family, kernel_class)
    if not choice.donor:
        return None
    sizes, ranks = np.broadcast_arrays(np.maximum(size, 1.0), np.maximum(local, 2.0))
    columns = {"bytes": sizes, "n_gpus": ranks}
    time = family.time(columns, facts(device), kernel_class, choice.parameters)
    move = np.where(np.asarray(local) > 1, time.parts_s["link"], 0.0)
    return KernelTime(time.parts_s["launch"] + move, {"link": move, "launch": time.parts_s["launch"]})
