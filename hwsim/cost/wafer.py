"""Wafer-scale meshes: a square of cores with private memory, priced in cycles of steps, hops and routing stages.

Machine (PLMR of WaferLLM, arXiv 2502.04563): many cores, latency that grows with hops (`hop` cycles) and with routing
stages (`stage` cycles), 48 KiB a core, a bounded number of routes. Every matrix axis is cut over the P cores of a side
and padded. Formulas with their derivation: docs/formulas/wafer.md.

- matrix-vector: mac x tile MACs + one all-reduce; K-tree all-reduce = hop P + stage K P^(1/K) / 2
- matrix-matrix: P steps of tile_mac Mp Kp Np + tile_start Kp Np + tile_step (two-hop cyclic shift)
- baselines: Cannon + hop P a step, SUMMA + (hop + stage) P, ring, pipeline; T10 and Ladder ports
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from hwsim.cost import fused
from hwsim.cost.bracketed import board, board_notes, bracketed, held
from hwsim.errors import InfeasibleError
from hwsim.ir.mapped import MappedGraph, Task
from hwsim.ir.numbers import Num, plain
from hwsim.ir.platform import Device, Platform
from hwsim.ir.result import Bracket, TaskCost, Timeline

BAND: Final = 1.15  # residuals of the six decode and six prefill points are within 3 %, end to end within 9 %
SIDE_STEP: Final = 60  # the mapper tries squares whose sides are multiples of this
_ATTENTION_REDUCTIONS: Final = 4  # scores, maximum and sum of the softmax, weighted values
_BYTES: Final = 2  # of an element on the fabric: fp16


@dataclass(frozen=True, slots=True)
class Cycles:
    """Clock cycles of one execution: multiply-accumulates, and what the mesh adds."""

    compute: Num
    mesh: Num


def task_cost(task: Task, platform: Platform) -> TaskCost:
    """Bracketed time of one execution in a planned graph (see `plan`)."""
    device, o = platform.device, section(platform.device)
    spent = cycles(task, task.choice.get("grid", largest_side(o)), o)
    moved = task.choice.get("mesh", {}).get("move_cycles", 0.0)
    spent = replace(spent, mesh=spent.mesh + moved)
    parts = {"compute": plain(spent.compute / device.clock_hz), "mesh": plain(spent.mesh / device.clock_hz)}
    run_w, energy = board(task, platform, o["power_run"])
    value, floors, model = parts["compute"] + parts["mesh"], held(task, platform), f"wafer {o['scheme']}"
    return bracketed(value, parts, floors, BAND, run_w=run_w, energy_j=energy, model=model)


def takes(device: Device) -> tuple[str, ...]:
    """Squares of cores, one an operator (`hwsim.mapping.mesh`)."""
    return ("mesh",)


def plan(graph: MappedGraph) -> MappedGraph:
    """Choose the side of the square of cores for this phase and check the memory of each core.

    Raises
    ------
    InfeasibleError: no square holds weights and cache, or the tree needs more routes than a core has.
    """
    device = graph.platform.device
    o = section(device)
    _check_routes(o, device)
    _check_sides(graph.phase, o, device)
    tasks = _prepared(graph, o)
    _check_widths(tasks, o, device)
    prepared = replace(graph, tasks=tasks)
    grid = asked_side(graph.phase, o) or _best_grid(prepared, o, device)
    if not o["layer_scaled"]:
        _require_core_memory(prepared, grid, o, device)
    notes = ("layer-scaled: a subset of the layers runs and its time is multiplied",) if o["layer_scaled"] else ()
    own = [t.choice.get("mesh", {}).get("grid", grid) for t in tasks]
    placed = tuple(replace(t, choice={**t.choice, "grid": side}) for t, side in zip(tasks, own, strict=True))
    return replace(graph, tasks=placed, notes=(*graph.notes, *notes, *board_notes(device, "mesh")))


def metrics(timelines: Sequence[Timeline]) -> Mapping[str, Bracket]:
    """Figures of the mapping: longest output, idle regions, efficiency of the first phase, re-placement time."""
    graph = timelines[-1].graph
    device, o = graph.platform.device, section(graph.platform.device)
    grid: Num = graph.tasks[0].choice.get("grid", largest_side(o))
    for task in graph.tasks:
        grid = np.maximum(grid, task.choice.get("grid", grid)) if "mesh" in task.choice else grid
    busy = timelines[0].busy_s
    spent = busy.get("compute", 0.0) + busy.get("mesh", 0.0)
    squares = graph.tasks[0].choice.get("mesh")  # a mapper's squares: it knows what the fullest core holds
    held = core_bytes(graph, grid, o) if squares is None else squares["bytes"] + o["reserved_per_core"]
    out = {
        "grid": Bracket(grid),
        "regions": Bracket(plain(regions(grid, o))),
        "underutilisation": Bracket(plain(regions(grid, o))),
        "compute_efficiency": Bracket(plain(busy.get("compute", 0.0) / np.maximum(spent, 1e-300))),
        "core_bytes": Bracket(plain(held)),
        "routes": Bracket(o["routes"]),
        # half of the data crosses the middle of the square over 2 P links of link_bytes a cycle
        "transition_s": Bracket(plain(grid * held / (4 * o["link_bytes"]) / device.clock_hz)),
    }
    longest = _longest_context(graph, grid, o)
    return {**out, "max_context_tokens": Bracket(longest)} if longest is not None else out


def cycles(task: Task, grid: Num, o: Mapping[str, Any]) -> Cycles:
    """Cycles of one execution on a square of `grid` x `grid` cores, by the cheaper of both matrix algorithms."""
    dims = task.operator.dims
    if task.kind in ("gemm", "moe"):
        return _products(task, grid, o)
    if task.kind == "attention_decode":
        width = dims["n_heads"] * dims["head_dim"]
        macs = 2 * dims["batch"] * _tile(width, grid) * _tile(dims["context"], grid)
        return Cycles(macs * o["mac"], _ATTENTION_REDUCTIONS * reduction(grid, o))
    if task.kind == "attention_prefill":
        width, keys = dims["n_heads"] * dims["head_dim"], dims["prefix"] + dims["q_len"]
        shapes = [(dims["q_len"], width, keys), (dims["q_len"], keys, width)]
        return _scaled(_matrix_way(shapes, grid, o), dims["batch"])
    if task.kind == "vector":
        local = _tile(dims["rows"], grid) * _tile(dims["cols"], grid)
        return Cycles(local, reduction(grid, o) if task.operator.op.endswith("norm") else 0.0)
    return Cycles(0.0, 0.0)


def _products(task: Task, grid: Num, o: Mapping[str, Any]) -> Cycles:
    """A projection, or the active experts one after another, by the cheaper of both matrix algorithms."""
    dims = task.operator.dims
    if task.kind == "moe":
        found, times = fused.expert_products(task)
        shapes = list(found)
    else:
        shapes = [(dims["m"], dims["k"], w) for w in task.choice.get("widths", (dims["n"],))]
        times = dims.get("batch", 1)
    half = 0.5 if task.choice.get("unused") else 1.0
    # with more rows the replicated operand would not fit a core; the prompt kernels are of the matrix kind anyway
    few = np.logical_and(np.asarray(shapes[0][0]) < grid, not task.choice.get("prompt"))
    spent = _cheaper(_vector_way(shapes, grid, o, half), _matrix_way(shapes, grid, o), few)
    expanded = sum((_tile(k, grid) * _tile(n, grid) for _, k, n in shapes), 0.0) * o["unpack"] * _narrow(task)
    return _scaled(replace(spent, compute=spent.compute + expanded), times)


def _narrow(task: Task) -> bool:
    """Whether weights are stored in fewer bits than cores compute with."""
    return any(w.format.element_bits < 8 * _BYTES for w in task.operator.weights[:1])


def reduction(grid: Num, o: Mapping[str, Any]) -> Num:
    """Cycles of an all-reduce along a row of `grid` cores; the payload of a few words does not show."""
    tree = o["hop"] * grid + o["stage"] * o["tree"] * np.asarray(grid, float) ** (1 / o["tree"]) / 2
    by_scheme = {
        "ring": (2 * o["hop"] + o["stage"]) * grid,
        "pipeline": (2 * o["hop"] + o["relay"]) * grid,
        "t10": o["t10_stage"] * grid,
        "ladder": o["ladder_stage"] * grid,
    }
    return plain(by_scheme.get(o["scheme"], tree))


def _vector_way(shapes: Sequence[tuple[Num, Num, Num]], grid: Num, o: Mapping[str, Any], half: float) -> Cycles:
    """Weights stay, the vector is replicated along one axis. `half`: a result that nobody reads is not sent back."""
    macs = sum((m * _tile(k, grid) * _tile(n, grid) for m, k, n in shapes), 0.0)
    payload = sum((2 * m * _tile(n, grid) * _BYTES / o["link_bytes"] for m, _, n in shapes), 0.0)
    return Cycles(macs * o["mac"], half * np.maximum(reduction(grid, o), payload))


def _matrix_way(shapes: Sequence[tuple[Num, Num, Num]], grid: Num, o: Mapping[str, Any]) -> Cycles:
    """`grid` steps, each a tile product and a shift of both tiles."""
    compute: Num = 0.0
    mesh: Num = 0.0
    for m, k, n in shapes:
        mp, kp, np_ = _tile(m, grid), _tile(k, grid), _tile(n, grid)
        work = o["tile_mac"] * mp * kp * np_ + o["tile_start"] * kp * np_
        elements = mp * kp + kp * np_
        compute = compute + grid * work
        mesh = mesh + grid * np.maximum(_step(elements, grid, o), elements * _BYTES / o["link_bytes"] - work)
    return Cycles(compute, mesh)


def _step(elements: Num, grid: Num, o: Mapping[str, Any]) -> Num:
    by_scheme = {
        "cannon": o["tile_step"] + o["hop"] * grid,
        "summa": o["tile_step"] + (o["hop"] + o["stage"]) * grid,
        "t10": o["t10_move"] * grid * elements,
        "ladder": o["ladder_move"] * grid * elements,
    }
    return by_scheme.get(o["scheme"], o["tile_step"])


def _cheaper(a: Cycles, b: Cycles, legal: Any) -> Cycles:
    """The cheaper of two, `a` only where it is legal."""
    first = np.logical_and(np.asarray(a.compute + a.mesh) <= np.asarray(b.compute + b.mesh), legal)
    return Cycles(np.where(first, a.compute, b.compute), np.where(first, a.mesh, b.mesh))


def _scaled(spent: Cycles, times: Num) -> Cycles:
    return Cycles(spent.compute * times, spent.mesh * times)


def _tile(extent: Num, grid: Num) -> Num:
    return np.ceil(np.asarray(extent) / grid)


def regions(grid: Num, o: Mapping[str, Any]) -> Num:
    """Squares of `grid` x `grid` cores that fit on the wafer."""
    return np.maximum(o["cores"] // (np.asarray(grid) ** 2), 1)


def core_bytes(graph: MappedGraph, grid: Num, o: Mapping[str, Any]) -> Num:
    """Bytes that the fullest core holds: its share of the layers of its region, their cache, and what is reserved."""
    per_layer = _layer_weights(graph) + _layer_cache(graph)
    share = per_layer / np.asarray(grid) ** 2 * np.ceil(graph.layers / regions(grid, o))
    if o["kv"] == "concat":  # one row of cores holds every new token
        share = share + _layer_cache(graph) * (1 / grid - 1 / np.asarray(grid) ** 2) * np.ceil(
            graph.layers / regions(grid, o)
        )
    return share + o["reserved_per_core"]


def asked_side(phase: str, o: Mapping[str, Any]) -> int:
    """The side that the device file or a what-if fixes for a phase; 0: free."""
    side: int = o["decode_grid"] if phase == "decode" else o["prefill_grid"]
    return side


def task_bytes(task: Task, graph: MappedGraph, grid: Num, o: Mapping[str, Any]) -> Num:
    """Bytes that one layer of a task takes of a core: its weights and cache, spread over its own square."""
    if task.operator.segment in ("embed", "head"):
        return 0.0 * np.asarray(grid)
    each = task.count / max(graph.layers, 1)
    weights = sum((w.stored_bytes for w in task.operator.weights), 0) * each
    cache = sum((c.stored_bytes for c in task.operator.inputs if c.role in ("kv_cache", "state")), 0) * each
    area = np.asarray(grid, float) ** 2
    more = cache * (1 / np.asarray(grid, float) - 1 / area) if o["kv"] == "concat" else 0.0
    return (weights + cache) / area + more


def move_cycles(task: Task, source: Num, target: Num, o: Mapping[str, Any]) -> Num:
    """Cycles to bring the output of a task from its square to another that shares a corner with it.

    Assumptions: the farthest core moves by the difference of the sides, one routing stage, and the rows of the
    output, cut over the smaller side, pass one link a core at the border.
    """
    dims = task.operator.dims
    rows = dims.get("rows", dims.get("m", dims.get("batch", 1) * dims.get("q_len", 1)))
    width = dims.get("cols", dims.get("n", dims.get("n_heads", 1) * dims.get("v_head_dim", 1)))
    side = np.minimum(source, target)
    payload = _tile(rows, side) * _tile(width, side) * _BYTES / o["link_bytes"]
    moved = o["hop"] * np.abs(np.asarray(source) - target) + o["stage"] + payload
    return np.where(np.equal(source, target), 0.0, moved)


def _longest_context(graph: MappedGraph, grid: Num, o: Mapping[str, Any]) -> Num | None:
    contexts = [t.operator.dims["context"] for t in graph.tasks if t.kind == "attention_decode"]
    cache = _layer_cache(graph)
    if not contexts or not np.all(np.asarray(cache) > 0):
        return None
    held = np.ceil(graph.layers / regions(grid, o))
    free = o["sram_per_core"] - o["reserved_per_core"] - held * _layer_weights(graph) / np.asarray(grid) ** 2
    rows = grid if o["kv"] == "shift" else 1
    return plain(np.floor(np.maximum(free, 0.0) / (held * cache / contexts[0] / grid)) * rows)


def _layer_weights(graph: MappedGraph) -> Num:
    inside = [t for t in graph.tasks if t.operator.segment not in ("embed", "head")]
    total = sum((w.stored_bytes * t.count for t in inside for w in t.operator.weights), 0)
    return total / max(graph.layers, 1)


def _layer_cache(graph: MappedGraph) -> Num:
    cached = [(t, c) for t in graph.tasks for c in t.operator.inputs if c.role in ("kv_cache", "state")]
    return sum((c.stored_bytes * t.count for t, c in cached), 0) / max(graph.layers, 1)


def _prepared(graph: MappedGraph, o: Mapping[str, Any]) -> tuple[Task, ...]:
    widths = fused.widths(graph)
    read = {name for task in graph.tasks for name in task.depends}
    prompts = graph.phase == "prefill" or any(task.kind == "attention_prefill" for task in graph.tasks)
    tasks = []
    for task in graph.tasks:
        own = widths.get(task.name, ())
        if o["full_heads"] and len(own) == 3 and task.name.endswith("qkv"):
            own = (own[0],) * 3
        choice = {**task.choice, "unused": task.name not in read, "prompt": prompts and task.operator.segment != "head"}
        tasks.append(replace(task, choice={**choice, "widths": own} if own else choice))
    return tuple(tasks)


def _best_grid(graph: MappedGraph, o: Mapping[str, Any], device: Device) -> Num:
    """The side with the least time among those whose cores hold their share: an axis of candidates and an argmin."""
    depth = max((np.ndim(d) for t in graph.tasks for d in t.operator.dims.values()), default=0)
    sides = np.arange(SIDE_STEP, largest_side(o) + 1, SIDE_STEP).reshape((-1,) + (1,) * depth)
    total: Num = 0.0
    for task in graph.tasks:
        spent = cycles(task, sides, o)
        total = total + (spent.compute + spent.mesh) * task.count
    held = core_bytes(graph, sides, o)
    legal = np.broadcast_to(np.logical_or(held <= o["sram_per_core"], o["layer_scaled"]), np.shape(total))
    # where no square is legal, the one that overflows least says what is missing
    none = ~np.any(legal, axis=0)
    best = np.where(none, np.argmin(held + 0 * total, axis=0), np.argmin(np.where(legal, total, np.inf), axis=0))
    chosen = np.ravel(sides)[best]
    return int(chosen) if np.ndim(chosen) == 0 else chosen


def _require_core_memory(graph: MappedGraph, grid: Num, o: Mapping[str, Any], device: Device) -> None:
    held = float(np.max(core_bytes(graph, grid, o)))
    if held > o["sram_per_core"]:
        raise InfeasibleError(
            f"{graph.workload} needs {held - o['sram_per_core']:,.0f} B more than a core of {device.name} has "
            f"in {graph.phase}",
            where=f"memory of one core, square of {int(np.max(grid))} x {int(np.max(grid))}",
            seen=f"{held:,.0f} B of {o['sram_per_core']:,.0f} B",
            fix="a shorter context, a smaller --weights format, another mesh.decode_grid, or mesh.layer_scaled=true",
            budget={"core_bytes": held, "sram_per_core": o["sram_per_core"], "missing": held - o["sram_per_core"]},
        )


def _check_routes(o: Mapping[str, Any], device: Device) -> None:
    needed = o["tree"] + 1
    if needed > o["routes"]:
        raise InfeasibleError(
            f"a {o['tree']}-level tree needs {needed - o['routes']} routes more than a core of {device.name} has",
            where="mesh.tree",
            seen=f"{needed} of {o['routes']}",
            fix=f"mesh.tree={o['routes'] - 1} or less",
            budget={"routes_needed": needed, "routes": o["routes"], "routes_missing": needed - o["routes"]},
        )


def _check_sides(phase: str, o: Mapping[str, Any], device: Device) -> None:
    """A fixed square fits on the wafer. Raises InfeasibleError."""
    side = asked_side(phase, o)
    if side > largest_side(o):
        raise InfeasibleError(
            f"a square of {side} x {side} needs {side**2 - int(o['cores']):,} cores more than {device.name} has",
            where="mesh.decode_grid" if phase == "decode" else "mesh.prefill_grid",
            seen=f"{side**2:,} of {int(o['cores']):,}",
            fix=f"{largest_side(o)} or less",
            budget={"cores_needed": side**2, "cores": o["cores"], "cores_missing": side**2 - o["cores"]},
        )


def _check_widths(tasks: Sequence[Task], o: Mapping[str, Any], device: Device) -> None:
    """Cores multiply 16-bit operands; narrower weights need a program that expands them. Raises InfeasibleError."""
    narrow = [t for t in tasks if t.kind in ("gemm", "moe") and _narrow(t)] if not o["unpack"] else []
    if narrow:
        weight = narrow[0].operator.weights[0].format
        raise InfeasibleError(
            f"{device.name} has no {weight.element_bits:g}-bit path: its cores multiply {8 * _BYTES}-bit operands, "
            f"{8 * _BYTES - weight.element_bits:g} bit missing",
            where=narrow[0].name,
            seen=weight.name,
            fix="--weights fp16, or mesh.unpack=N, the cycles in which a core expands a weight",
            budget={"bits": weight.element_bits, "path_bits": 8 * _BYTES},
        )


def largest_side(o: Mapping[str, Any]) -> int:
    """Side of the largest square of cores."""
    return math.isqrt(int(o["cores"]))


def section(device: Device) -> Mapping[str, Any]:
    """The mesh section of a device. Raises InfeasibleError where it has none."""
    section: Mapping[str, Any] | None = device.extra.get("mesh")
    if section is None:
        raise InfeasibleError(f"{device.name} has no mesh section: its cores are not described", fix="add mesh:")
    return section
