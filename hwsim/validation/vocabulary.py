"""From the words of a published setup to scenarios of the ordinary API: a fixed vocabulary of keys, and rules by file.

Keys: model, op with m, k, n; batch; prompt_len, gen_len, context_len with phase; precision; cores (a grid of a wafer);
parallelism (``TP8``); hardware (``A vs B`` makes two points). A range of lengths stands for its midpoint. Whatever is
special to a system stands in the rules of its claims file, never here.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from hwsim.errors import InputError
from hwsim.schema.claims import Claim, ClaimsFile, Rule

_RANGE: Final = re.compile(r"\s*<?\s*(\d+)\s*(?:-|to)\s*(\d+)\s*\Z")
_PRECISIONS: Final = {"fp16": "fp16", "bf16": "bf16", "w8a8": "w8a8", "int8": "w8a8", "fp8": "fp8", "int4": "int4"}
MOST_SETTINGS: Final = 10_000  # of a grid: each is an estimate of some milliseconds
SIZES: Final = {"pd_ratio", "prompt_len", "gen_len"}  # settings that are words of a setup, not options


@dataclass(frozen=True, slots=True)
class Point:
    """Arguments of one call of a public function: ``evaluate``, ``simulate`` or ``timeline``."""

    workload: str
    hardware: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    what_if: Mapping[str, Any] = field(default_factory=dict)
    run: str = "evaluate"


@dataclass(frozen=True, slots=True)
class Case:
    """Points that a claim compares: usually one side, or two (`A vs B`).

    A side holds one grid of settings for each combination of its unpublished parameters.
    """

    sides: tuple[tuple[tuple[Point, ...], ...], ...]
    metric: str = ""


def case_of(claim: Claim, file: ClaimsFile) -> Case:
    """Scenarios of a claim.

    Raises
    ------
    InputError: the setup names no hardware or workload that the rules know.
    """
    sides = _sides(claim, file)
    used = [r.use for r in _matching(claim, file, sides[0]) if r.use]
    metric = used[0] if used else file.metrics.get(claim.metric, claim.metric)
    return Case(tuple(_points(claim, file, side) for side in sides), metric)


def _sides(claim: Claim, file: ClaimsFile) -> list[str]:
    """Texts of the sides: the hardware key split at ``vs``, else the baseline that a rule names."""
    text = str(claim.setup.get("hardware", ""))
    extra = " ".join(str(claim.setup.get(key, "")) for key in ("framework", "mode", "dataset", "kernel"))
    sides = [f"{side} {extra}".strip() for side in re.split(r"\s+(?:vs|over|against)\.?\s+", text)]
    if len(sides) == 1:
        rules = [r for r in _matching(claim, file, sides[0]) if r.against]
        sides += [rules[0].against] if rules else []
    return sides


def _matching(claim: Claim, file: ClaimsFile, side: str) -> list[Rule]:
    text = _plain(f"{side} {claim.claim} {claim.setup.get('baseline', '')}")
    near = _plain(side)
    return [r for r in file.rules if _applies(r, claim, near, text)]


def _applies(rule: Rule, claim: Claim, near: str, text: str) -> bool:
    """Words are looked for in the side; words that start with ``~`` in the claim's whole sentence too."""
    found = all((w[1:] in text) if w.startswith("~") else (w in near) for w in map(_plain, rule.words))
    free = not any((w[1:] in text) if w.startswith("~") else (w in near) for w in map(_plain, rule.without))
    metric = not rule.metric or claim.metric in rule.metric
    setup = all(_matches(claim.setup.get(key), want) for key, want in rule.setup.items())
    return found and free and metric and setup


def _matches(seen: Any, want: Any) -> bool:
    if want is None or want == "absent":
        return seen is None
    if want == "given":
        return seen is not None
    return seen == want or _plain(str(want)) in _plain(str(seen))


def _plain(text: str) -> str:
    return text.lower().replace("_", "-")


def _points(claim: Claim, file: ClaimsFile, side: str) -> tuple[tuple[Point, ...], ...]:
    rules = _matching(claim, file, side)
    setup = {**_defaults(claim, file), **claim.setup}
    hardware = next((r.hw for r in rules if r.hw), str(file.defaults.get("hw", "")))
    workload = _workload(setup, next((r.workload for r in rules if r.workload), ""))
    if not hardware or not workload:
        raise InputError("no rule maps this setup", where=claim.id, seen=side[:80], fix="add a rule to its claims file")
    options = _named({k: v for rule in reversed(rules) for k, v in rule.options.items()}, setup)
    what_if = _named({k: v for rule in reversed(rules) for k, v in rule.set.items()}, setup)

    run = next((r.run for r in rules if r.run), "evaluate")
    axes = {part for r in rules for name in (*r.grid, *r.free) for part in name.split("+")} - SIZES

    def point(chosen: Mapping[str, Any]) -> Point:
        sizes = {**setup, **{k: v for k, v in chosen.items() if "." not in k}}
        lengths = served(sizes) if run == "simulate" else _lengths(sizes)
        arguments = {**lengths, **_formats(sizes), **_parallel(sizes), **options}
        plain = axes if run != "evaluate" else {"weights", "batch", "prompt", "output"}
        arguments |= {k: v for k, v in chosen.items() if k in plain and "." not in k}
        paths = {k: v for k, v in chosen.items() if "." in k}
        return Point(_filled(workload, sizes), hardware, arguments, {**what_if, **_grids(sizes), **paths}, run)

    grid = _axes([r.grid for r in rules if all(claim.setup.get(k) is None or k == "batch" for k in r.grid)])
    return tuple(tuple(point({**settings, **free}) for settings in grid) for free in _axes([r.free for r in rules]))


def _named(values: Mapping[str, Any], setup: Mapping[str, Any]) -> dict[str, Any]:
    """Values that a rule takes from the setup: ``$pruned`` is the key of that name, ``$kv_gb GB`` one with a unit."""
    taken = {k: _taken(v, setup) if isinstance(v, str) and v.startswith("$") else v for k, v in values.items()}
    return {k: v for k, v in taken.items() if v is not None}


def _taken(text: str, setup: Mapping[str, Any]) -> Any:
    key, _, unit = text[1:].partition(" ")
    value = setup.get(key)
    return f"{value} {unit}" if unit and value is not None else value


def _axes(axes: Sequence[Mapping[str, list[Any]]]) -> list[dict[str, Any]]:
    """All combinations of the named values; ``a+b`` names two whose values come in pairs."""
    merged = {name: values for part in axes for name, values in part.items()}
    settings = math.prod(len(values) for values in merged.values())
    if settings > MOST_SETTINGS:
        raise InputError(f"a grid of {settings:g} settings, more than {MOST_SETTINGS}", where=", ".join(merged))
    return [
        {
            part: item
            for name, found in zip(merged, chosen, strict=True)
            for part, item in (zip(name.split("+"), found, strict=True) if "+" in name else [(name, found)])
        }
        for chosen in itertools.product(*merged.values())
    ]


def _defaults(claim: Claim, file: ClaimsFile) -> dict[str, Any]:
    """Defaults of the file, without its lengths where the setup gives a length of its own."""
    if any(claim.setup.get(key) is not None for key in ("context_len", "seq")):
        return {k: v for k, v in file.defaults.items() if k not in ("prompt_len", "gen_len")}
    return file.defaults


def _workload(setup: Mapping[str, Any], by_rule: str) -> str:
    if setup.get("op") in ("gemv", "gemm", "matmul"):
        return str(setup["op"])
    return by_rule or str(setup.get("model", "")).split(",")[0].split(" / ")[0].strip()


def _filled(workload: str, sizes: Mapping[str, Any]) -> str:
    if workload == "gemv":
        return f"gemv:{sizes.get('m', sizes.get('n'))}x{sizes.get('n', sizes.get('m'))}"
    if workload in ("gemm", "matmul"):
        return f"gemm:{sizes['m']}x{sizes.get('n', sizes['m'])}x{sizes.get('k', sizes['m'])}"
    return workload


def number(value: Any) -> float | None:
    """A number, the midpoint of a range, or a number with K; None otherwise."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        return value
    match = _RANGE.match(str(value))
    if match is not None:
        return (int(match[1]) + int(match[2])) / 2
    digits = re.match(r"\s*(\d+)\s*([kK]?)\s*\Z", str(value))
    return int(digits[1]) * (1024 if digits[2] else 1) if digits else None


def served(setup: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a request-level run that a setup names: token budget, requests, and a limit on token gaps.

    ``P99 TBT 0.2 s`` is the limit of a capacity search; the strictest comes first and counts.
    """
    found: dict[str, Any] = {}
    names = {
        "token_budget": "chunk",
        "chunk": "chunk",
        "requests": "requests",
        "prompt_len": "prompt",
        "gen_len": "output",
    }
    for key, option in names.items():
        value = number(setup.get(key))
        if value is not None and value >= 1:
            found[option] = round(value)
    ratio, length = number(setup.get("pd_ratio")), number(setup.get("seq_len"))
    if ratio is not None and length is not None:
        found |= {"prompt": round(length * ratio / (ratio + 1)), "output": max(1, round(length / (ratio + 1)))}
    limit = re.search(r"P(\d\d) TBT ([\d.]+) s", str(setup.get("slo", "")))
    if limit is not None:
        found |= {"capacity": True, "limits": f"itl_s_p{limit[1]}={limit[2]}"}
    return found


def mixed_context(prompt: float, output: float) -> float:
    """Cached tokens a token of a mixed batch in the steady state, where each request is prefilled once and decoded.

    Of `prompt + output` tokens a share output/(prompt + output) decodes, at prompt + output/2 cached tokens on average.
    """
    return output * (prompt + output / 2) / (prompt + output)


def _lengths(setup: Mapping[str, Any]) -> dict[str, Any]:
    prompt, output = number(setup.get("prompt_len")), number(setup.get("gen_len"))
    dense = number(setup.get("dense_batch"))
    if dense is not None and prompt is not None and output:
        return {"batch": round(dense), "prompt": max(1, round(mixed_context(prompt, output)) - 1), "output": 2}
    context = number(setup.get("context_len", setup.get("seq", setup.get("seq_len"))))
    if context is not None and setup.get("prompt_len") is None:
        decoding = setup.get("phase") != "prefill"
        prompt, output = (max(context - 1, 1), 2) if decoding else (context, 2)
    if prompt is None and number(setup.get("tokens")):
        prompt = number(setup.get("tokens"))  # of one operator: the rows of its activations
    batch = number(setup.get("batch"))
    found = {"batch": batch, "prompt": prompt, "output": output}
    return {k: round(v) for k, v in found.items() if v is not None and v >= 1}


def _formats(setup: Mapping[str, Any]) -> dict[str, Any]:
    asked = str(setup.get("precision", "")).strip().lower()
    return {"weights": _PRECISIONS[asked]} if asked in _PRECISIONS else {}


def _parallel(setup: Mapping[str, Any]) -> dict[str, Any]:
    match = re.match(r"TP(\d+)", str(setup.get("parallelism", "")))
    return {"tp": int(match[1])} if match else {}


def _grids(setup: Mapping[str, Any]) -> dict[str, Any]:
    """Core grids of a wafer: one for both phases, or one a phase."""
    cores = setup.get("cores")
    if isinstance(cores, dict):
        return {f"mesh.{phase}_grid": _side(text) for phase, text in cores.items()}
    if isinstance(cores, str) and "x" in cores:
        return {"mesh.prefill_grid": _side(cores), "mesh.decode_grid": _side(cores)}
    return {}


def _side(text: Any) -> int:
    return int(str(text).split("x")[0])
