"""A mapping document as YAML files for timeloop-model: architecture, energies, problem and mapping (version 0.4).

Conventions, all of them also in the README that is written beside the files:
- levels are listed far to near; the fan-out between two levels is a container with ``meshX`` and its spread is a
  ``spatial`` entry of the farther level, as Timeloop attributes spatial loops;
- ``permutation`` reads from the innermost loop outward, `hwsim` orders from the outermost inward;
- the batch is dimension G of all three tensors: outermost at the last level, side by side at the farthest fan-out;
- words are counted, one word is one entry of ``datawidth`` bits; bandwidths are words a cycle and instance;
- sizes that do not divide carry the bound of the last pass after a comma (``K=5,3``), Timeloop's imperfect factors;
- energies are pJ a word; a fill is Timeloop's ``write``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Final

from hwsim.errors import InputError

Document = Mapping[str, Any]
DIMS: Final = ("M", "N", "K")
VERSION: Final = "0.4"
_PROJECTIONS: Final = {"A": "MK", "B": "KN", "Z": "MN"}
_README: Final = """Written by hwsim for timeloop-model (version 0.4 files).

  timeloop-model architecture.yaml ert.yaml {folder}problem.yaml {folder}mapping.yaml

Conventions
- Z[M,N] += A[M,K] B[K,N]; G is the batch, a dimension of all three tensors.
- Words are entries of `datawidth` bits. Bandwidths are words a cycle and instance.
- `permutation` lists loops from the innermost outward.
- The spread over the instances of a level is the `spatial` entry of the next farther level.
- A factor `P,R` has bound P, and R on the last pass (imperfect factors).
- Energies in ert.yaml are pJ a word: fills count as `write`, partial sums as `update`.
- hwsim counts multicast and spatial reduction as free and overlaps all ports perfectly ("legacy" counting).{notes}
"""


def timeloop_files(document: Document) -> dict[str, str]:
    """Relative path -> text of every file; several GEMMs get a folder each for their problem and mapping.

    Raises
    ------
    InputError: no loops were decided, or the tiling is uneven, which Timeloop's format cannot say.
    """
    operators = document["operators"]
    if document["uneven"]:
        raise InputError("an uneven tiling has no form in Timeloop's files", where="--export", fix="leave out --uneven")
    if not all(row["levels"] for row in operators):
        fix = "use --mapper tiling"
        raise InputError(f"mapper {document['mapper']} decides no loops to export", where="--export", fix=fix)
    files = {"architecture.yaml": architecture(document["machine"])}
    if document["machine"]["mac_pj"] is not None:
        files["ert.yaml"] = energies(document["machine"])
    for index, row in enumerate(operators):
        folder = "" if len(operators) == 1 else f"{index + 1:02d}-{re.sub(r'[^A-Za-z0-9.-]+', '-', row['name'])}/"
        files[f"{folder}problem.yaml"] = problem(row)
        files[f"{folder}mapping.yaml"] = mapping(row)
    files["README.txt"] = _readme(document)
    return files


def _readme(document: Document) -> str:
    notes = ""
    if document["counting"] == "drains":
        notes += (
            "\n- These counts include the read of output tiles that leave a level, which legacy Timeloop leaves out."
        )
    if document["machine"]["mac_pj"] is None:
        notes += "\n- The device file gives no energies, so there is no ert.yaml: compare access counts and cycles."
    text = _README.format(folder="" if len(document["operators"]) == 1 else "NAME/", notes=notes)
    return text if document["machine"]["mac_pj"] is not None else text.replace(" ert.yaml {", " {", 1)


def architecture(machine: Document) -> str:
    """``architecture.yaml``: levels far to near inside the containers of their fan-outs, then the multiplier."""
    lines = [
        "architecture:",
        f"  version: {VERSION}",
        "  nodes:",
        "  - !Container",
        "    name: system",
        "    attributes:",
        f"      global_cycle_seconds: {1.0 / machine['clock_hz']!r}",
        '      technology: "unknown"',
    ]
    for level in reversed(machine["levels"]):
        lines += _level(level, machine["word_bits"])
    lines += ["  - !Component", "    name: mac", "    class: intmac", "    attributes:"]
    return _text([*lines, f"      datawidth: {machine['word_bits']:g}"])


def _level(level: Document, bits: float) -> list[str]:
    lines = []
    if level["fanout"] > 1:
        fan = level["fanout"]
        lines += ["  - !Container", f"    name: {level['name']}_array", "    spatial:", f"      meshX: {fan}"]
    kind = "DRAM" if level["words"] is None else "storage"
    lines += ["  - !Component", f"    name: {level['name']}", f"    class: {kind}", "    attributes:"]
    facts: dict[str, Any] = {"width": f"{bits:g}", "datawidth": f"{bits:g}"}
    if level["words"] is not None:
        facts["depth"] = f"{level['words']:.0f}"
    if level["double_buffer"]:
        facts["multiple_buffering"] = 2
    if level["shared_port"]:
        facts["shared_bandwidth"] = level["words_per_cycle"]
    else:
        facts["read_bandwidth"] = level["words_per_cycle"]
        facts["write_bandwidth"] = level["write_words_per_cycle"]
    return lines + [f"      {name}: {value}" for name, value in facts.items() if value is not None]


def energies(machine: Document) -> str:
    """``ert.yaml``: pJ of each action of each component."""
    lines = ["ERT:", f"  version: {VERSION}", "  tables:"]
    instances = 1
    prefix = "system"
    for level in reversed(machine["levels"]):
        instances *= level["fanout"]
        actions = {
            "read": level["pj_per_word"],
            "write": level["write_pj_per_word"],
            "update": level["write_pj_per_word"],
            "leak": 0.0,
        }
        lines += _table(f"{prefix}.{level['name']}[1..{instances}]", actions)
    return _text(lines + _table(f"{prefix}.mac[1..{instances}]", {"compute": machine["mac_pj"], "leak": 0.0}))


def _table(name: str, actions: dict[str, float]) -> list[str]:
    lines = [f"  - name: {name}", "    actions:"]
    for action, energy in actions.items():
        lines += [f"    - name: {action}", "      arguments: {}", f"      energy: {energy!r}"]
    return lines


def problem(row: Document) -> str:
    """``problem.yaml``: the GEMM with its batch."""
    lines = ["problem:", f"  version: {VERSION}", "  shape:", "    name: GEMM", "    dimensions: [G, M, N, K]"]
    lines.append("    data_spaces:")
    for tensor, dims in _PROJECTIONS.items():
        where = ", ".join(f"[[{d}]]" for d in f"G{dims}")
        lines += [f"    - name: {tensor}", f"      projection: [{where}]"]
    lines.append("      read_write: true")
    g = row["gemm"]
    lines.append(f"  instance: {{G: {g['batch']}, M: {g['m']}, N: {g['n']}, K: {g['k']}}}")
    return _text(lines)


def mapping(row: Document) -> str:
    """``mapping.yaml``: loops of every level far to near, spreads, and what each level keeps."""
    levels, tiling, g = row["levels"], row["tiling"], row["gemm"]
    rest = {d: int(g[d.lower()]) for d in DIMS}
    farthest = max((i for i, level in enumerate(levels[:-1]) if level["fanout"] > 1), default=0)
    members = tiling["batch_spatial"]
    lines = ["mapping:"]
    for i in reversed(range(len(levels))):
        name = levels[i]["name"]
        inside = [math.prod(tiling["temporal"][j][d] for j in range(i)) for d in range(3)]
        spread = [math.prod(tiling["spatial"][j][d] for j in range(i)) for d in range(3)]
        sizes = [a * b for a, b in zip(inside, spread, strict=True)]
        factors = _factors(tiling["temporal"][i], sizes, rest)
        batch = math.ceil(g["batch"] / members) if i == len(levels) - 1 else 1
        order = "".join(reversed(tiling["order_outer_to_inner"][i])) + "G"
        lines += _entry(name, "temporal", f"{factors} G={batch}", order)
        kept = [t for t in _PROJECTIONS if t in tiling["keep"][i]]
        skipped = [t for t in _PROJECTIONS if t not in kept]
        lines += [f"- target: {name}", "  type: bypass", f"  keep: [{', '.join(kept)}]"]
        lines.append(f"  bypass: [{', '.join(skipped)}]")
        if i > 0:
            child = [s // f for s, f in zip(sizes, tiling["spatial"][i - 1], strict=True)]
            factors = _factors(tiling["spatial"][i - 1], child, rest)
            side = members if i - 1 == farthest else 1
            lines += _entry(name, "spatial", f"{factors} G={side}", "MNKG")
    return _text(lines)


def _entry(name: str, kind: str, factors: str, order: str) -> list[str]:
    return [f"- target: {name}", f"  type: {kind}", f'  factors: "{factors}"', f"  permutation: {order}"]


def _factors(bounds: list[int], sizes: list[int], rest: dict[str, int]) -> str:
    """``M=8 N=64 K=5,3``; `rest` is what the last pass still has to cover and shrinks on the way inward."""
    parts = []
    for d, bound, size in zip(DIMS, bounds, sizes, strict=True):
        last = min(math.ceil(rest[d] / size), bound)
        rest[d] -= (last - 1) * size
        parts.append(f"{d}={bound}" if last == bound else f"{d}={bound},{last}")
    return " ".join(parts)


def _text(lines: list[str]) -> str:
    return "\n".join(lines) + "\n"
