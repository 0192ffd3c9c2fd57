"""Which splits of a model over devices are legal: what the degrees must divide, and where groups may lie."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from hwsim.errors import InputError
from hwsim.ir.platform import Platform
from hwsim.ir.workload import Operator, WorkloadGraph
from hwsim.mapping.candidates import divisors
from hwsim.mapping.parallelism.topology import tiles_node


@dataclass(frozen=True, slots=True)
class Layout:
    """Degrees of one split. `tp * pp * dp` devices work; `sp` keeps the residual stream in rows."""

    tp: int = 1
    pp: int = 1
    dp: int = 1
    ep: int = 1
    sp: bool = False

    @property
    def devices(self) -> int:
        return self.tp * self.pp * self.dp

    def __str__(self) -> str:
        parts = [f"{name}{value}" for name, value in (("tp", self.tp), ("pp", self.pp), ("dp", self.dp)) if value > 1]
        parts += [f"ep{self.ep}"] * (self.ep > 1) + ["sp"] * self.sp
        return " ".join(parts) or "one device"


@dataclass(frozen=True, slots=True)
class Extents:
    """What the degrees must divide. `split` maps a name to the extents that every tensor rank takes a part of."""

    layers: int
    split: dict[str, tuple[int, ...]] = field(default_factory=dict)
    kv_heads: tuple[int, ...] = ()
    experts: tuple[int, ...] = ()
    expert_widths: tuple[int, ...] = ()
    vocabulary: int = 0

    @classmethod
    def of(cls, *graphs: WorkloadGraph) -> Extents:
        """Extents of the operators of all phases (scalar sizes)."""
        split: dict[str, set[int]] = {}
        kv_heads, experts, widths, vocabulary = set[int](), set[int](), set[int](), 0
        operators = [o for graph in graphs for o in graph.operators]
        layers = sum({o.segment: o.repeat for o in graphs[0].operators if o.segment not in ("embed", "head")}.values())
        for o in operators:
            for name, extent in _splits(o):
                split.setdefault(name, set()).add(extent)
            if "n_kv_heads" in o.dims:
                kv_heads.add(int(o.dims["n_kv_heads"]))
            if o.kind == "moe":
                experts.add(int(o.dims["experts"]))
                widths.add(int(o.dims["inter"]))
            if o.shard == "vocab" and o.kind == "gemm":
                vocabulary = int(o.dims["n"])
        ordered = {name: tuple(sorted(extents)) for name, extents in split.items()}
        sets = (tuple(sorted(kv_heads)), tuple(sorted(experts)), tuple(sorted(widths)))
        return cls(max(layers, 1), ordered, *sets, vocabulary)


def _splits(operator: Operator) -> Iterator[tuple[str, int]]:
    """(name, extent) of what a tensor rank takes a part of; the same rules as `hwsim.mapping.lower`."""
    if operator.kind == "gemm" and operator.shard in ("column", "row"):
        yield "matrix widths", int(operator.dims["n" if operator.shard == "column" else "k"])
    elif operator.shard == "heads" and "n_heads" in operator.dims:
        yield "attention heads", int(operator.dims["n_heads"])


@dataclass(frozen=True, slots=True)
class Legal:
    """Layouts that may be costed, and why others may not: reason -> how many."""

    layouts: tuple[Layout, ...]
    refused: dict[str, int]


def enumerate_layouts(extents: Extents, platform: Platform, devices: int) -> Legal:
    """Every legal layout of up to `devices` devices.

    Tensor x pipeline degrees divide `devices`, or the largest power of two below it (some devices idle then);
    replicas divide what is left. Raises InputError where the platform has fewer devices.
    """
    if not 1 <= devices <= platform.count:
        raise InputError(
            f"{platform.name} has {platform.count} devices", where="--devices", seen=str(devices), fix="ask for fewer"
        )
    legal: dict[Layout, None] = {}
    refused: Counter[str] = Counter()
    for total in dict.fromkeys((devices, 1 << (devices.bit_length() - 1))):
        for layout in _all(extents, total):
            reason = objection(layout, extents, platform)
            if reason:
                refused[reason] += 1
            else:
                legal[layout] = None
    return Legal(tuple(legal), dict(refused))


def _all(extents: Extents, devices: int) -> Iterator[Layout]:
    for tp in divisors(devices):
        for pp in divisors(devices // tp):
            for dp in divisors(devices // (tp * pp)):
                for ep in _expert_degrees(extents, tp, dp):
                    yield Layout(tp, pp, dp, ep)
                    if tp > 1:
                        yield Layout(tp, pp, dp, ep, sp=True)


def _expert_degrees(extents: Extents, tp: int, dp: int) -> tuple[int, ...]:
    """Divisors of the tensor group, and the tensor group times each divisor of the replicas."""
    if not extents.experts:
        return (1,)
    return tuple(dict.fromkeys((*divisors(tp), *(tp * g for g in divisors(dp)))))


def objection(layout: Layout, extents: Extents, platform: Platform) -> str:
    """Why a layout is not legal, or nothing."""
    return _indivisible(layout, extents) or _misplaced(layout, platform)


def _indivisible(layout: Layout, extents: Extents) -> str:
    tp, ep = layout.tp, layout.ep
    for name, sizes in extents.split.items():
        if any(size % tp for size in sizes):
            return f"tp does not divide the {name}"
    if any(heads % tp and tp % heads for heads in extents.kv_heads):
        return "KV heads cannot be spread evenly"
    if extents.vocabulary and tp > extents.vocabulary:
        return "more ranks than words"
    if tp % ep and (ep % tp or layout.dp % (ep // tp)):
        return "expert groups are no whole tensor groups"
    if any(count % ep for count in extents.experts):
        return "ep does not divide the experts"
    if ep < tp and any(width % (tp // ep) for width in extents.expert_widths):
        return "tp / ep does not divide the expert width"
    return "more stages than layers" if layout.pp > extents.layers else ""


def _misplaced(layout: Layout, platform: Platform) -> str:
    node = max(platform.node_size, 1)
    group = max(layout.tp, layout.ep)
    if layout.tp > 1 and platform.scale_up is None:
        return "the devices have no link"
    if platform.scale_out is None and group > node:
        return "a group leaves the node and there is no network"
    if platform.scale_out is None and group * layout.pp > node and layout.pp > 1:
        return "stages leave the node and there is no network"
    if not tiles_node(layout.tp, node):
        return "tensor groups straddle nodes"
    return "" if tiles_node(group, node) else "expert groups straddle nodes"
