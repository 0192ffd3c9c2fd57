"""An independent reader of exported files: parses the YAML, walks every iteration and counts words one by one.

Knows nothing of `hwsim.mapping`: loops come from the factors and permutations, spreads from the spatial entries, and
every word is counted by comparing the tile that is needed with the tile that is there.
"""

from __future__ import annotations

import io
import math
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML

Range = tuple[int, int]


@dataclass(frozen=True)
class Loop:
    level: int  # 0 is the nearest
    spatial: bool
    dim: str
    bound: int
    last: int


@dataclass
class Exported:
    levels: list[str]  # near to far
    depth: list[int | None]
    fanout: list[int]
    loops: list[Loop]  # outermost first
    keep: list[set[str]]
    dims: dict[str, list[str]]
    extents: dict[str, int]

    @property
    def ragged(self) -> bool:
        """Sizes that do not divide: there a loop that stops early still counts as a loop, by hwsim's convention."""
        return any(loop.last != loop.bound for loop in self.loops)


def load(text: str) -> Any:
    """YAML with Timeloop's tags read as plain mappings that remember the tag under ``!``."""
    yaml = YAML(typ="safe", pure=True)
    for tag in ("!Container", "!Component"):
        yaml.constructor.add_constructor(
            tag, lambda loader, node, tag=tag: {"!": tag, **_plain(loader, node)}
        )  # fmt: skip
    return yaml.load(io.StringIO(text))


def _plain(loader: Any, node: Any) -> dict[str, Any]:
    return dict(loader.construct_mapping(node, deep=True))


def read(files: dict[str, str], folder: str = "") -> Exported:
    names, depth, fanout = _architecture(load(files["architecture.yaml"])["architecture"]["nodes"])
    problem = load(files[f"{folder}problem.yaml"])["problem"]
    entries = load(files[f"{folder}mapping.yaml"])["mapping"]
    index = {name: i for i, name in enumerate(names)}
    loops, keep = [], [set("ABZ") for _ in names]
    for entry in entries:
        at = index[entry["target"]]
        if entry["type"] == "bypass":
            keep[at] = set(entry["keep"])
            continue
        table = {d: (int(p), int(r or p)) for d, p, r in re.findall(r"([A-Z])=(\d+)(?:,(\d+))?", entry["factors"])}
        for d in reversed(entry["permutation"]):  # written from the innermost
            loops.append(Loop(at, entry["type"] == "spatial", d, *table[d]))
    spaces = problem["shape"]["data_spaces"]
    dims = {s["name"]: [term[0][0] for term in s["projection"]] for s in spaces}
    return Exported(names, depth, fanout, loops, keep, dims, problem["instance"])


def _architecture(nodes: list[Any]) -> tuple[list[str], list[int | None], list[int]]:
    names: list[str] = []
    depth: list[int | None] = []
    fanout: list[int] = []
    mesh = 1
    for node in nodes:
        if node["!"] == "!Container":
            mesh *= node.get("spatial", {}).get("meshX", 1)
        elif node["class"] != "intmac":
            names.append(node["name"])
            depth.append(node["attributes"].get("depth"))
            fanout.append(mesh)
            mesh = 1
    return names[::-1], depth[::-1], fanout[::-1]


def iterations(e: Exported) -> Iterator[tuple[tuple[int, ...], dict[str, int]]]:
    """Every iteration in order: loop indices outermost first and the coordinates they reach."""
    sizes = []
    inner: dict[str, int] = defaultdict(lambda: 1)
    for loop in reversed(e.loops):
        sizes.append(inner[loop.dim])
        inner[loop.dim] *= loop.bound
    sizes.reverse()

    def walk(at: int, taken: tuple[int, ...], where: dict[str, int], last: dict[str, bool]) -> Iterator[Any]:
        if at == len(e.loops):
            yield taken, dict(where)
            return
        loop = e.loops[at]
        bound = loop.last if last[loop.dim] else loop.bound
        for i in range(bound):
            now = {**last, loop.dim: last[loop.dim] and i == bound - 1}
            yield from walk(at + 1, (*taken, i), {**where, loop.dim: where[loop.dim] + i * sizes[at]}, now)

    start = dict.fromkeys(e.extents, 0)
    yield from walk(0, (), start, dict.fromkeys(e.extents, True))


def count(e: Exported) -> dict[str, dict[str, dict[str, int]]]:
    """``{level: {tensor: {"reads", "fills", "updates"}}}`` by walking time steps.

    At one time step every spatial instance works. A keeping level's instance holds the elements that the loops at
    and below it will touch until a loop outside it advances. Where all sizes divide, words move exactly when the
    held elements change; otherwise when a loop outside the free run advances.
    """
    steps = list(iterations(e))
    words: Any = {n: {t: dict.fromkeys(("reads", "fills", "updates"), 0) for t in e.dims} for n in e.levels}
    for tensor in e.dims:
        chain = [i for i in range(len(e.levels)) if tensor in e.keep[i]]
        for child, parent in zip([-1, *chain], chain, strict=False):
            _boundary(e, steps, tensor, child, parent, words)
    return words


def _boundary(e: Exported, steps: Any, tensor: str, child: int, parent: int, words: Any) -> None:
    """Count the words of one tensor between two levels."""
    outer = [j for j, loop in enumerate(e.loops) if not loop.spatial and loop.level > child]
    spread = [j for j, loop in enumerate(e.loops) if loop.spatial]
    above = [j for j in spread if e.loops[j].level > parent]
    below = [j for j in spread if parent >= e.loops[j].level > child]
    visits: dict[tuple[int, ...], Any] = {}
    for taken, where in steps:  # group by time outside the child, then by parent and child instance
        key = tuple(taken[j] for j in outer)
        place = (tuple(taken[j] for j in above), tuple(taken[j] for j in below))
        element = tuple(where[d] for d in e.dims[tensor])
        visits.setdefault(key, {}).setdefault(place[0], {}).setdefault(place[1], set()).add(element)
    run = _free_run(e, tensor, outer)
    seen_parent: Any = defaultdict(set)
    seen_child: Any = defaultdict(set)
    before: dict[Any, Any] = {}
    name, near = e.levels[parent], None if child < 0 else e.levels[child]
    for key, parents in visits.items():
        for at, children in parents.items():
            there = key[: len(key) - run] if e.ragged else children
            if child >= 0 and before.get(at) == there:
                continue  # the same tiles again: free reuse
            before[at] = there
            union = set().union(*children.values())
            if tensor == "Z":
                words[name][tensor]["updates"] += len(union)
                words[name][tensor]["reads"] += len(union & seen_parent[at])
                seen_parent[at] |= union
            else:
                words[name][tensor]["reads"] += len(union)
            if near is None:
                continue
            for mine, tile in children.items():
                old = seen_child[at, mine]
                words[near][tensor]["fills"] += len(tile & old) if tensor == "Z" else len(tile)
                old |= tile


def _free_run(e: Exported, tensor: str, outer: list[int]) -> int:
    """How many of the innermost loops only step along dimensions that the tensor lacks (loops of one step: any)."""
    run = 0
    for j in reversed(outer):
        if e.loops[j].bound > 1 and e.loops[j].dim in e.dims[tensor]:
            break
        run += 1
    return run


def largest_tiles(e: Exported) -> list[int]:
    """Words that the tiles of each level take of one instance, keeping tensors only."""
    size: dict[str, int] = dict.fromkeys(e.extents, 1)
    found = []
    for level in range(len(e.levels)):
        for loop in e.loops:
            if (loop.level == level and not loop.spatial) or (loop.spatial and loop.level == level):
                size[loop.dim] *= loop.bound
        tiles = {t: math.prod(min(size[d], e.extents[d]) for d in e.dims[t]) for t in e.keep[level]}
        found.append(sum(tiles.values()))
    return found
