"""Collectives on links: bytes on the wire, and time by the alpha-beta model of each algorithm.

n = message bytes (all_gather: total output; reduce_scatter: total input; others: buffer of one rank), r = ranks,
B = bandwidth of one direction per device, alpha = latency of one step.

- ring all-reduce     2(r-1)/r n/B + 2(r-1) alpha   (Patarasuk & Yuan, JPDC 2009)
- tree all-reduce     2 n/B + 2 ceil(log2 r) alpha   (Sanders et al., double binary tree)
- in-network          n/B + 2 alpha                 (switch reduces: each rank sends and receives n once)
- all-gather, reduce-scatter, all-to-all (r-1)/r n/B + (r-1) alpha; send/recv n/B + alpha

Across nodes an all-reduce is reduce-scatter inside the node, all-reduce of n/node_size between nodes on the
network port of each device, all-gather inside the node. Floors use the best algorithm with alpha = 0.
"""

from __future__ import annotations

import numpy as np

from hwsim.errors import InfeasibleError
from hwsim.ir.numbers import Num
from hwsim.ir.platform import Link, Platform

OPS = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "send_recv")


def wire_bytes(op: str, message_bytes: Num, ranks: Num) -> Num:
    """Bytes that each rank sends without help from the network. `op` is one of `OPS`."""
    if op == "send_recv":
        return message_bytes * 1.0
    share = (ranks - 1) / np.maximum(ranks, 1)
    return message_bytes * share * (2 if op == "all_reduce" else 1)


def link_time_s(op: str, message_bytes: Num, ranks: Num, link: Link, latency_scale: float = 1.0) -> Num:
    """Seconds of one collective on one link by its best algorithm; `latency_scale` 0 gives the wire time."""
    bandwidth, alpha = link.bandwidth_bytes_per_s, link.latency_s * latency_scale
    ring_steps = np.maximum(ranks - 1, 0)
    if op == "send_recv":
        return message_bytes / bandwidth + alpha
    if op != "all_reduce":
        return wire_bytes(op, message_bytes, ranks) / bandwidth + ring_steps * alpha
    times = [wire_bytes(op, message_bytes, ranks) / bandwidth + 2 * ring_steps * alpha]
    many = np.minimum(ring_steps, 1)  # 0 for a single rank: nothing to do
    depth = np.ceil(np.log2(np.maximum(ranks, 1)))
    times.append(many * 2 * message_bytes / bandwidth + 2 * depth * alpha)
    if link.in_network_reduction:
        times.append(many * (message_bytes / bandwidth + 2 * alpha))
    return np.minimum.reduce(np.broadcast_arrays(*times)) if len(times) > 1 else times[0]


def time_s(op: str, message_bytes: Num, ranks: Num, platform: Platform, latency_scale: float = 1.0) -> Num:
    """Seconds of one collective of `ranks` devices of the platform, hierarchical where they span nodes.

    Raises
    ------
    InfeasibleError: the devices have no link, or span nodes without a network.
    """
    most = int(np.max(ranks))
    if most <= 1 and op != "send_recv":
        return 0.0 * message_bytes
    if platform.scale_up is None:
        raise InfeasibleError(
            f"{platform.device.name} has no link to other devices", seen=f"{most} ranks", fix="use --tp 1"
        )
    if most <= platform.node_size:
        return link_time_s(op, message_bytes, ranks, platform.scale_up, latency_scale)
    if platform.scale_out is None:
        raise InfeasibleError(
            f"{op} over {most} devices leaves the node of {platform.node_size}",
            where=platform.name,
            fix="use a cluster file with a network, or a smaller --tp",
        )
    return _hierarchical(op, message_bytes, ranks, platform, platform.scale_out, latency_scale)


def _hierarchical(op: str, message: Num, ranks: Num, platform: Platform, network: Link, latency_scale: float) -> Num:
    assert platform.scale_up is not None
    local, nodes = np.minimum(ranks, platform.node_size), np.maximum(ranks / platform.node_size, 1)
    if op == "send_recv":
        return link_time_s(op, message, ranks, network, latency_scale)
    if op == "all_reduce":
        inner = 2 * link_time_s("reduce_scatter", message, local, platform.scale_up, latency_scale)
        return inner + link_time_s(op, message / local, nodes, network, latency_scale)
    if op == "all_to_all":
        return wire_bytes(op, message, ranks) * (1 - (local - 1) / np.maximum(ranks - 1, 1)) / (
            network.bandwidth_bytes_per_s
        ) + link_time_s(op, message * local / ranks, local, platform.scale_up, latency_scale)
    inner = link_time_s(op, message, local, platform.scale_up, latency_scale)
    return inner + link_time_s(op, message / local, nodes, network, latency_scale)


def wire_time_s(op: str, message_bytes: Num, ranks: Num, platform: Platform) -> Num:
    """Floor: the best algorithm with no latency."""
    value = time_s(op, message_bytes, ranks, platform, latency_scale=0.0)
    return float(value) if np.ndim(value) == 0 else value
