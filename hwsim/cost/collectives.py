"""Collectives on links: bytes on the wire, and time by the alpha-beta model of each algorithm.

n = message bytes (all_gather: total output; reduce_scatter: total input; others: buffer of one rank), r = ranks,
B = bandwidth of one direction per device, alpha = latency of one step.

- ring all-reduce     2(r-1)/r n/B + 2(r-1) alpha   (Patarasuk & Yuan, JPDC 2009)
- tree all-reduce     2 n/B + 2 ceil(log2 r) alpha   (Sanders et al., double binary tree)
- in-network          n/B + 2 alpha                 (switch reduces: each rank sends and receives n once)
- all-gather, reduce-scatter, all-to-all (r-1)/r n/B + (r-1) alpha; send/recv n/B + alpha

Across nodes a library runs one ring over all ranks, so every byte of the ring leaves each node, by all its ports at
once: wire bytes / min(B inside, ranks of a node x B of a port). The measured rates of 2 x 1, 2 and 4 GPUs follow that
(docs/formulas/collectives.md); a hierarchy would send up to 2 (r-1)/r : 2 (k-1)/k fewer bytes over k nodes, which only
libraries with reduction in the switch do. Floors use the best algorithm, its stages overlapped, with alpha = 0.
"""

from __future__ import annotations

import numpy as np

from hwsim.errors import InfeasibleError
from hwsim.ir.numbers import Num, plain
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


def time_s(op: str, message_bytes: Num, ranks: Num, platform: Platform) -> Num:
    """Seconds of one collective of `ranks` devices of the platform, by one ring or tree where they span nodes.

    Raises
    ------
    InfeasibleError: the devices have no link, or span nodes without a network.
    """
    if int(np.max(ranks)) <= 1 and op != "send_recv":
        return 0.0 * message_bytes
    up, out = links_of(op, ranks, platform)
    inside = link_time_s(op, message_bytes, np.minimum(ranks, platform.node_size), up)
    if out is None:
        return link_time_s(op, message_bytes, ranks, up)
    across = ring_across_s(op, message_bytes, ranks, platform.node_size, up, out)
    across = across + _hops_s(op, ranks, platform, up, out)
    return plain(np.where(np.asarray(ranks) > platform.node_size, across, inside))


def links_of(op: str, ranks: Num, platform: Platform) -> tuple[Link, Link | None]:
    """The link inside a node, and the network port of a device if some of the collectives leave the node.

    Raises InfeasibleError where one that is needed is missing.
    """
    most = int(np.max(ranks))
    if platform.scale_up is None:
        raise InfeasibleError(
            f"{platform.device.name} has no link to other devices", seen=f"{most} ranks", fix="use --tp 1"
        )
    if most <= platform.node_size:
        return platform.scale_up, None
    if platform.scale_out is None:
        raise InfeasibleError(
            f"{op} over {most} devices leaves the node of {platform.node_size}",
            where=platform.name,
            fix="use a cluster file with a network, or a smaller --tp",
        )
    return platform.scale_up, platform.scale_out


def ring_across_s(op: str, message: Num, ranks: Num, node_size: int, up: Link, out: Link, eff: float = 1.0) -> Num:
    """Seconds that the wires of a collective across nodes take; `eff`: sustained share of the network's rate."""
    local, nodes = np.minimum(ranks, node_size), np.maximum(ranks / node_size, 1)
    port = out.bandwidth_bytes_per_s * eff
    if op == "send_recv":
        return message / port
    if op == "all_to_all":
        near = wire_bytes(op, message * local / ranks, local) / up.bandwidth_bytes_per_s
        return _far_bytes(message, ranks, local) / port + near
    ring = wire_bytes(op, message, ranks) / np.minimum(up.bandwidth_bytes_per_s, local * port)
    if op != "all_reduce" or not up.in_network_reduction:
        return ring
    reduced = message * (1 + 1 / local) / up.bandwidth_bytes_per_s
    return np.minimum(ring, np.maximum(reduced, wire_bytes(op, message, nodes) / (local * port)))


def _hops_s(op: str, ranks: Num, platform: Platform, up: Link, out: Link) -> Num:
    """Latency: up and down a tree of chains for an all-reduce, around the ring for its halves."""
    local, nodes = np.minimum(ranks, platform.node_size), np.maximum(ranks / platform.node_size, 1)
    if op == "send_recv":
        return out.latency_s
    if op == "all_reduce":
        return 2 * (np.ceil(np.log2(local)) * up.latency_s + np.ceil(np.log2(nodes)) * out.latency_s)
    return (local - 1) * up.latency_s + np.ceil(nodes - 1) * out.latency_s


def wire_time_s(op: str, message_bytes: Num, ranks: Num, platform: Platform) -> Num:
    """Floor: the best algorithm with no latency, stages inside and between nodes overlapped."""
    if int(np.max(ranks)) <= 1 and op != "send_recv":
        return 0.0 * message_bytes
    up, out = links_of(op, ranks, platform)
    value = link_time_s(op, message_bytes, np.minimum(ranks, platform.node_size), up, 0.0)
    if out is not None:
        across = _floor_across_s(op, message_bytes, ranks, platform)
        value = np.where(np.asarray(ranks) > platform.node_size, across, value)
    return plain(value)


def _far_bytes(message: Num, ranks: Num, local: Num) -> Num:
    """Bytes of an all-to-all that a rank sends to other nodes."""
    return wire_bytes("all_to_all", message, ranks) * (1 - (local - 1) / np.maximum(ranks - 1, 1))


def _floor_across_s(op: str, message: Num, ranks: Num, platform: Platform) -> Num:
    assert platform.scale_up is not None and platform.scale_out is not None
    up, port = platform.scale_up, platform.scale_out.bandwidth_bytes_per_s
    local, nodes = np.minimum(ranks, platform.node_size), np.maximum(ranks / platform.node_size, 1)
    if op == "send_recv":
        return message / port
    if op == "all_to_all":
        return _far_bytes(message, ranks, local) / port
    between = wire_bytes(op, message, nodes) / (local * port)
    return np.maximum(link_time_s(op, message, local, up, 0.0), between)
