"""Text of a `hwsim/synthesis@1` document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_COLUMNS = ("reuse", "dsp", "lut", "ff", "bram18", "cycles", "interval")


def synthesis_text(document: Mapping[str, Any]) -> str:
    """One line a layer, the totals, and what the device has."""
    asked, device = document["asked"], document["device"]
    rows = [(item["layer"], *(f"{item[name]:,.0f}" for name in _COLUMNS)) for item in document["layers"]]
    total = document["total"]
    rows.append(("total", "", *(f"{total[name]:,.0f}" for name in _COLUMNS[1:])))
    rows.append(
        (document["hardware"], "", *(f"{device[name]:,.0f}" if name in device else "" for name in _COLUMNS[1:]))
    )
    table = [("layer", *_COLUMNS), *rows]
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    lines = [
        f"{document['network']} on {document['hardware']}: {document['latency_s'] * 1e6:,.3g} us, "
        f"{document['inferences_per_s']:,.4g} inferences/s; rules of thumb, not a learned surrogate",
        f"  reuse {asked['reuse']}, weights {asked['weight_bits']} bit, activations {asked['activation_bits']} bit",
        "",
    ]
    for row in table:
        lines.append(
            "  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        )
    moved = [item for item in document["layers"] if item["reuse"] != asked["reuse"]]
    lines += [f"note: {item['layer']}: nearest legal reuse factor {item['reuse']}" for item in moved]
    lines += [f"warning: {name}: more multipliers than the compiler unrolls" for name in document["unrolled_too_far"]]
    return "\n".join(lines)
