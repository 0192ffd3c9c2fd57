"""FPGA overlays: instruction queues for loads, matrix work and vector work that run side by side.

Machine (FlightLLM, arXiv 2401.03868, and its public profiler): `engines` cores, one a die region; each multiplies with
chains of DSP slices in a matrix-matrix mode (tile mm_rows x mm_cols) or a matrix-vector mode (mv_cols outputs at a
time) and is fed by its own group of memory channels. Ternary models add instead of multiply (arXiv 2406.02528).
Formulas with their derivation: docs/formulas/fpga.md.

- mac  = sum over matrices of padded MACs x density / (macs a cycle x clock x engines x sync)
- ld   = bytes / (engines x weight_channels x channel rate x channel_efficiency x sync)
- misc = element passes / (misc_lanes x clock x sync x min(rows, engines)); softmax and norms take two passes
- phase = max(sum mac, sum ld) + sum misc: loads run ahead of the matrix queue, vector work waits for its result
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from hwsim.cost import fpga_limits, fused, tiled
from hwsim.cost.bracketed import Floors, board, board_notes, bracketed, held
from hwsim.cost.fpga_limits import MATRICES, dsp_used
from hwsim.errors import InfeasibleError
from hwsim.ir.mapped import MappedGraph, Task
from hwsim.ir.numbers import Num, plain
from hwsim.ir.platform import Device, Platform
from hwsim.ir.result import Bracket, TaskCost, Timeline
from hwsim.ir.workload import Operator, Tensor

# The simulator that the machine model follows agrees within 3 %; boards and other models are less certain.
BAND: Final = 1.15
_TWO_PASSES: Final = 2  # statistics first, then the values: softmax and norms
# applied while the tiles of the matrix-matrix mode are written back: from so many rows on that it is the faster one
_FUSED_IN_PREFILL: Final = ("silu_mul", "gelu_mul", "silu", "gelu", "relu")
# Why the datasheet of the board does not hold for an operator: its demand is restated by `_floors`.
_CHAINS: Final = "chains multiply the kept weights alone, at the width that the overlay stores"
_LANES: Final = (
    "an element a lane and pass, whatever its operations; fused ones pass with the tiles they are applied to"
)
_BUFFERS: Final = "activations stay in the buffers of the engines, which feed chains and lanes at their clock"
_AHEAD: Final = "rows are loaded ahead of the queues that use them"
_FREE: Final = ("rope",)  # applied to queries and keys on their way to the buffer


def task_cost(task: Task, platform: Platform) -> TaskCost:
    """Bracketed time of one execution in a planned graph (see `plan`)."""
    o, device = _built(task, platform.device), platform.device
    queues = _queues(task, device, o)
    mac_bound = task.choice.get("mac_bound", True)
    value = np.where(mac_bound, queues["mac"], queues["ld"]) + queues["misc"] + queues["start"]
    run_w, energy = board(task, platform, o["power_run"])
    floors = _floors(task, platform, o)
    return bracketed(plain(value), queues, floors, BAND, run_w=run_w, energy_j=energy, model="fpga")


def takes(device: Device) -> tuple[str, ...]:
    """Tilings: what the on-chip memory makes pass twice. Overlays: how the slices are built into chains."""
    return ("tiling", "overlay")


def built(device: Device, overlay: Mapping[str, Any]) -> Mapping[str, Any]:
    """The section of a device with the fields that an overlay changes; arrays of candidates are allowed."""
    return {**_section(device), **overlay}


def _built(task: Task, device: Device) -> Mapping[str, Any]:
    return built(device, task.choice.get("overlay", {}).get("built", {}))


def phase_s(tasks: Sequence[Task], device: Device, overlay: Mapping[str, Any]) -> Num:
    """Seconds of a phase of planned tasks on an overlay: max(sum mac, sum ld) + misc + loads that nothing hides."""
    o = built(device, overlay)
    sums: dict[str, Num] = {}
    for task in tasks:
        for name, seconds in _queues(task, device, o).items():
            sums[name] = sums.get(name, 0.0) + seconds * task.count
    return np.maximum(sums["mac"], sums["ld"]) + sums["misc"] + sums["start"]


def plan(graph: MappedGraph) -> MappedGraph:
    """Check the resource budget, split fused projections, narrow the head, and find the queue that binds the phase.

    Raises
    ------
    InfeasibleError: more DSP slices than the device has, a weight width without a datapath, or activations
        that do not stay on chip.
    """
    device, o = graph.platform.device, _section(graph.platform.device)
    fpga_limits.require_dsp(device, o)
    fpga_limits.require_sparsity(device, o)
    widths = fused.widths(graph)
    block = _block_format(graph)
    tasks = [_prepared(_unpacked(task), graph, o, widths.get(task.name, ()), block) for task in graph.tasks]
    for task in tasks:
        fpga_limits.require_width(task, device, o)
    fpga_limits.require_on_chip(graph, o)
    mac: Num = 0.0
    load: Num = 0.0
    for task in tasks:
        queues = _queues(task, device, _built(task, device))
        mac = mac + queues["mac"] * task.count
        load = load + queues["ld"] * task.count
    bound = np.asarray(mac) >= np.asarray(load)
    bounded = tuple(replace(t, choice={**t.choice, "mac_bound": bound}) for t in tasks)
    return replace(graph, tasks=bounded, notes=(*graph.notes, *board_notes(device, "fpga")))


def metrics(timelines: Sequence[Timeline]) -> Mapping[str, Bracket]:
    """Work of the last phase (one decode step): MACs with padding, loaded bytes, instructions.

    `program_bytes` holds the decode programs of all lengths up to the longest, one for each group of `length_step`:
    programs grow linearly with the length, so the mean one stands for all.
    """
    graph = timelines[-1].graph
    o = _section(graph.platform.device)
    macs: Num = 0.0
    loaded: Num = 0.0
    for task in graph.tasks:
        mine = _built(task, graph.platform.device)
        macs = macs + _macs(task, graph.platform.device, mine) * task.count
        loaded = loaded + _loaded_bytes(task, graph.platform.device, mine) * task.count
    instructions = macs / (o["mv_cols"] * o["mv_depth"])
    prompt = timelines[0].graph.tokens / timelines[0].graph.batch
    contexts = [t.operator.dims["context"] for t in graph.tasks if t.kind == "attention_decode"]
    longest = (
        2 * contexts[0] - prompt if contexts else prompt
    )  # the mean context lies half of the reply past the prompt
    return {
        "macs": Bracket(macs),
        "loaded_bytes": Bracket(loaded),
        "instructions": Bracket(instructions),
        "program_bytes": Bracket(
            plain(instructions * o["instruction_bytes"] * np.ceil(np.asarray(longest) / o["length_step"]))
        ),
        "dsp_used": Bracket(
            max(dsp_used(_built(t, graph.platform.device)) for line in timelines for t in line.graph.tasks)
        ),
    }


def _section(device: Device) -> Mapping[str, Any]:
    section: Mapping[str, Any] | None = device.extra.get("fpga")
    if section is None:
        raise InfeasibleError(
            f"{device.name} has no fpga section: its overlay is not described",
            where=f"{device.name} fpga",
            seen="(absent)",
            fix="add one as in docs/recipes/device.md or `hwsim show u280 --resolved`; `hwsim map` needs none",
        )
    return section


def _unpacked(task: Task) -> Task:
    """The task without operations to expand its weights: the chains' own units do that on the way."""
    return replace(task, flop={name: flop for name, flop in task.flop.items() if "/" not in name})


def _block_format(graph: MappedGraph) -> Any:
    inner = [t for t in graph.tasks if t.kind == "gemm" and t.operator.segment != "head" and t.operator.weights]
    return inner[0].operator.weights[0].format if inner else None


def _prepared(task: Task, graph: MappedGraph, o: Mapping[str, Any], widths: tuple[Num, ...], block: Any) -> Task:
    if task.kind != "gemm":
        return task
    operator = task.operator
    head = operator.segment == "head"
    if o["quantized_head"] and block is not None:  # the head and routers, which checkpoints keep in 16 bits
        operator = operator.with_(inputs=tuple(_narrowed(t, block) for t in operator.inputs))
    rows = graph.tokens if head and o["head_all_tokens"] else operator.dims["m"]
    choice = {**task.choice, "widths": widths, "densities": _densities(operator, widths, o), "rows": rows}
    return replace(task, operator=operator, choice=choice)


def _narrowed(tensor: Tensor, fmt: Any) -> Tensor:
    wide = tensor.role == "weight" and tensor.format.element_bits > fmt.element_bits
    return replace(tensor, format=fmt) if wide else tensor


def _densities(operator: Operator, widths: tuple[Num, ...], o: Mapping[str, Any]) -> tuple[float, ...]:
    """Kept share by matrix: the query and key projections, and the others; the head stays dense."""
    if operator.segment == "head":
        return (1.0,) * len(widths)
    if len(widths) == 3 and operator.name.endswith("qkv"):
        return (o["qk_density"], o["qk_density"], o["density"])
    return (o["density"],) * len(widths)


def _queues(task: Task, device: Device, o: Mapping[str, Any]) -> dict[str, Num]:
    """Seconds of one execution in each queue; `start` are loads that nothing hides."""
    rate = o["clock"] * o["engines"] * o["sync"]
    load = load_bandwidth(device, o)
    weights = _weight_bytes(task, o)
    streamed = _loaded_bytes(task, device, o) - weights
    vector_mode = _matrix_vector(task, device, o)
    mac = np.where(vector_mode, _mv_slots(task, o) / o["mv_macs"], _mm_slots(task, o) / o["mm_macs"]) / rate
    # a matrix-matrix burst begins when its weights are in the buffer; a matrix-vector one consumes them as they come
    start = np.where(vector_mode, 0.0, weights / load)
    ahead = np.where(vector_mode, weights, 0.0) + streamed
    misc = _passes(task, o) / (o["misc_lanes"] * o["clock"] * o["sync"] * np.minimum(_rows(task), o["engines"]))
    parts = {"mac": mac, "ld": ahead / load, "misc": misc, "start": start}
    return {name: plain(seconds) for name, seconds in parts.items()}


def load_bandwidth(device: Device, o: Mapping[str, Any]) -> Num:
    """Bytes a second that the loads of all cores reach: each core its own channel group."""
    channel = device.main_memory.read_bytes_per_s / o["channels"]
    return channel * min(o["engines"] * o["weight_channels"], o["channels"]) * o["channel_efficiency"] * o["sync"]


def _rows(task: Task) -> Num:
    dims = task.operator.dims
    if task.kind == "attention_prefill":
        return dims["batch"] * dims["q_len"]
    return dims.get("batch", 1) if task.kind == "attention_decode" else dims.get("rows", dims.get("m", 1))


def _matrix_vector(task: Task, device: Device, o: Mapping[str, Any]) -> Any:
    """True where the matrix-vector mode is the faster one: few rows would leave a tile empty.

    The matrix-matrix mode also waits for its weights.
    """
    if task.kind not in (*MATRICES, "attention_decode", "attention_prefill"):
        return np.asarray(True)
    wait = _weight_bytes(task, o) / load_bandwidth(device, o) * o["clock"] * o["engines"] * o["sync"]
    return np.asarray(_mv_slots(task, o) / o["mv_macs"]) <= np.asarray(_mm_slots(task, o) / o["mm_macs"] + wait)


def _up(value: Num, step: Num) -> Num:
    return np.ceil(np.asarray(value) / step) * step


def _kept(task: Task, o: Mapping[str, Any]) -> tuple[tuple[Num, float], ...]:
    """Matrices of a projection as (width, density of the work): a fixed cascade computes the zeros too."""
    widths = task.choice.get("widths", (task.operator.dims["n"],))
    densities = task.choice.get("densities", (1.0,) * len(widths))
    return tuple((w, d if o["chain"] == "sparse" else 1.0) for w, d in zip(widths, densities, strict=True))


def _mv_slots(task: Task, o: Mapping[str, Any]) -> Num:
    """MAC slots of the matrix-vector mode, padded to mv_cols outputs."""
    dims, cols = task.operator.dims, o["mv_cols"]
    if task.kind == "gemm":
        rows = task.choice.get("rows", dims["m"]) * dims.get("batch", 1)
        return sum((rows * dims["k"] * _up(w, cols) * d for w, d in _kept(task, o)), 0.0)
    if task.kind == "moe":
        return _expert_slots(task, None, cols, o)
    if task.kind == "attention_decode":
        heads = dims["batch"] * dims["n_heads"]
        context = _up(dims["context"], o["length_step"])  # one program serves a group of lengths, at its upper end
        return heads * (dims["head_dim"] * _up(context, cols) + context * _up(dims["v_head_dim"], cols))
    if task.kind == "attention_prefill":
        heads, keys = dims["batch"] * dims["q_len"] * dims["n_heads"], dims["prefix"] + dims["q_len"]
        return heads * (dims["head_dim"] * _up(keys, cols) + keys * _up(dims["v_head_dim"], cols))
    return 0.0


def _mm_slots(task: Task, o: Mapping[str, Any]) -> Num:
    """MAC slots of the matrix-matrix mode, padded to output tiles; attention computes the whole score matrix."""
    dims, cols = task.operator.dims, o["mm_cols"]
    if task.kind == "gemm":
        rows = _up(task.choice.get("rows", dims["m"]), o["mm_rows"]) * dims.get("batch", 1)
        return sum((rows * dims["k"] * _up(w, cols) * d for w, d in _kept(task, o)), 0.0)
    if task.kind == "moe":
        return _expert_slots(task, o["mm_rows"], cols, o)
    if task.kind == "attention_decode":
        return _mv_slots(task, o) * o["mm_rows"]
    if task.kind == "attention_prefill":
        rows, keys = _up(dims["q_len"], o["mm_rows"]), dims["prefix"] + dims["q_len"]
        width = dims["head_dim"] * _up(keys, cols) + keys * _up(dims["v_head_dim"], cols)
        return dims["batch"] * dims["n_heads"] * rows * width
    return 0.0


def _expert_slots(task: Task, tile_rows: Num | None, cols: Num, o: Mapping[str, Any]) -> Num:
    """MAC slots of the active experts; the rows of each are padded to tiles by themselves (None: no tiles)."""
    products, active = fused.expert_products(task)
    kept = o["density"] if o["chain"] == "sparse" else 1.0
    padded = ((r if tile_rows is None else _up(r, tile_rows)) * k * _up(n, cols) for r, k, n in products)
    return active * kept * sum(padded, 0.0)


def _macs(task: Task, device: Device, o: Mapping[str, Any]) -> Num:
    return plain(np.where(_matrix_vector(task, device, o), _mv_slots(task, o), _mm_slots(task, o)))


def _weight_bytes(task: Task, o: Mapping[str, Any]) -> Num:
    """Kept weights with the index of each, padded to whole instructions."""
    weight = task.operator.weight_format
    if task.kind != "gemm" or weight is None:
        kept = o["density"] if task.kind == "moe" and weight is not None else 1.0
        more = _stored_bits(weight.bits, kept, o) / weight.bits if weight is not None else 1.0
        return sum((w.moved_bytes for w in task.operator.weights), 0) * kept * more
    densities = task.choice.get("densities", (1.0,) * len(task.choice.get("widths", (1,))))
    widths = task.choice.get("widths", (task.operator.dims["n"],))
    sizes = (_up(w, o["mv_cols"]) * d * _stored_bits(weight.bits, d, o) for w, d in zip(widths, densities, strict=True))
    return task.operator.dims["k"] * sum(sizes) / 8


def _stored_bits(bits: float, density: float, o: Mapping[str, Any]) -> float:
    return bits + (o["index_bits"] if density < 1 and o["chain"] == "sparse" else 0.0)


def _loaded_bytes(task: Task, device: Device, o: Mapping[str, Any]) -> Num:
    """Bytes that the load queue moves: weights, cache, and activations that do not stay on chip.

    In the matrix-matrix mode the activations of a row tile pass once for every column tile: the buffer holds one. A
    mapper's tiling of the on-chip memory says instead what passes more than once.
    """
    cached = sum((t.moved_bytes for t in task.operator.inputs if t.role in ("kv_cache", "state")), 0)
    loaded = _weight_bytes(task, o) + cached
    if task.kind != "gemm":
        return loaded
    activations = sum((t.moved_bytes for t in task.operator.inputs if t.role == "activation"), 0)
    tiles = sum((_up(w, o["mm_cols"]) / o["mm_cols"] * d for w, d in _kept(task, o)), 0.0)
    spilled = 0.0 if o["on_chip_decode"] else activations * o["channel_efficiency"] / o["cross_efficiency"] * 2
    tiling = tiled.tiling_of(task)
    repeated = activations * tiles if tiling is None else activations + tiling["excess_bytes"]
    return loaded + np.where(_matrix_vector(task, device, o), spilled, repeated)


def _passes(task: Task, o: Mapping[str, Any]) -> Num:
    """Element passes of the vector unit in one execution."""
    dims, op = task.operator.dims, task.operator.op
    if task.kind == "attention_decode":
        return _TWO_PASSES * dims["batch"] * dims["n_heads"] * dims["context"]
    if task.kind == "attention_prefill":  # the maximum is found while score tiles leave the chains: one pass is left
        keys = dims["prefix"] + np.where(dims["causal"], dims["q_len"] / 2, dims["q_len"])
        return dims["batch"] * dims["n_heads"] * dims["q_len"] * keys
    if task.kind != "vector" or op in _FREE:
        return 0.0
    elements = dims["rows"] * dims["cols"]
    if op in _FUSED_IN_PREFILL:
        return elements * (np.asarray(dims["rows"]) < o["mm_rows"] * o["mv_macs"] / o["mm_macs"])
    added = sum(1 for t in task.operator.outputs if t.name.endswith("residual"))
    return elements * (_TWO_PASSES + added if op.endswith("norm") else 1)


def _floors(task: Task, platform: Platform, o: Mapping[str, Any]) -> Floors:
    """Seconds at datasheet peaks: kept operations at the widest packing, compulsory bytes, element passes."""
    device, own = platform.device, dict[str, Num]()
    main, rate = device.main_memory.name, device.main_memory.read_bytes_per_s
    near = {m.name: _BUFFERS for m in device.memories}
    if task.kind in (*MATRICES, "attention_decode", "attention_prefill"):
        peak = max(float(np.max(c.peak_flop_per_s)) for c in device.compute)
        kept = min((d for _, d in _kept(task, o)), default=1.0) if task.kind == "gemm" else 1.0
        slots = 2 * o["clock"] * o["engines"] * max(o["mm_macs"], o["mv_macs"])
        own["compute"] = task.operator.flop * kept / max(peak, slots)
        cached = sum((t.moved_bytes for t in task.operator.inputs if t.role == "kv_cache"), 0)
        weights = sum((w.moved_bytes for w in task.operator.weights), 0) if task.kind in MATRICES else 0
        own[main] = (weights * min(o["density"], o["qk_density"]) + cached) / rate
        return held(task, platform, own, instead={"compute": _CHAINS, **near, main: _CHAINS})
    own["compute"] = plain(_passes(task, o) / (o["misc_lanes"] * o["clock"] * o["engines"]))
    if task.kind != "embedding":
        return held(task, platform, own, instead={"compute": _LANES, **near})
    own[main] = sum((w.moved_bytes for w in task.operator.weights), 0) / rate
    return held(task, platform, own, instead={"compute": _LANES, **near}, beside={main: _AHEAD})
