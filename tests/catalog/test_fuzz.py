"""T14: mutated catalog files give a typed input error with file and line, or a finite device - never a traceback.

Each seed picks a shipped file and one to three mutations; the same seed always makes the same file.
"""

from __future__ import annotations

import dataclasses
import math
import random
import re
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hwsim import content
from hwsim.errors import HwsimError
from hwsim.ir.platform import Calibration
from hwsim.schema.base import validate
from hwsim.schema.loader import load_hardware
from hwsim.schema.reader import read
from hwsim.schema.systems import MemoryFile, PricesFile

SECONDS_EACH = 2.0
NASTY_SCALARS = (
    ".nan",
    ".inf",
    "-.inf",
    "NaN",
    "1e400",
    "-1e400",
    "1e400 GB/s",
    "-5",
    "-5 GB/s",
    "0",
    "0 GB/s",
    "-0.0 W",
    "9" * 30,
    "9" * 5000,
    "1" + "0" * 400 + " GiB",
    "1e-400 GB/s",
    "5e-324 s",
    "true",
    "~",
    "",
    "[]",
    "{}",
    "[1, 2]",
    "{a: 1}",
    "0x7f",
    "0o17",
    "12:30",
    "1_000 GB/s",
    "__",
    "1e",
    "'",
    '"',
    "yes",
    "2039 GBs",
    "2039 Gb/s",
    "2039 TFLOP/s",
    "2039",
    "80 GiB",
    "400 kW",
    "1 year",
    "\u202e80 GiB",
    "８０ GiB",
    "80\u00a0GiB",
    "٣ GB/s",
    "\U0001f680",
    "a\u0000b",
    '"\\0"',
    '"\\ud800"',
    "\ufeff",
    "x" * 100_000,
    "*nope",
    "&a 1",
    "!!python/object/apply:os.system [ls]",
    "!!float 3",
    "!!binary aGk=",
    "! x",
    "<<",
    "? x",
    "- x",
    "| x",
    "%YAML 1.1",
    "@x",
    "`x`",
    "2026-01-01",
    "../../etc/passwd",
    "/etc/passwd",
    "a100",
    "a100.yaml",
    "h100-sxm4",
    "..",
    ".",
    "\\",
    "\x7f",
    "\x85",
)
PARENTS = ("a100", "h100", "rtx-pro-6000-server", "nothing-like-it", "../up", "/etc/passwd", "subject", "[a]", "42")
ODD = (0, 7, 8, 11, 27, 127, 133, 0x2028, 0xFEFF, 0xFFFE, 0x1F600, 0x0301)
TAGS = ("!!str ", "!!int ", "!x ", "!!python/none ", "&anchor ", "!<tag:yaml.org,2002:str> ")
Mutation = Callable[[list[str], random.Random], None]


def _line(lines: list[str], rng: random.Random) -> int:
    return rng.randrange(len(lines))


def drop_line(lines: list[str], rng: random.Random) -> None:
    del lines[_line(lines, rng)]


def double_line(lines: list[str], rng: random.Random) -> None:
    at = _line(lines, rng)
    lines.insert(at, lines[at])


def swap_lines(lines: list[str], rng: random.Random) -> None:
    a, b = _line(lines, rng), _line(lines, rng)
    lines[a], lines[b] = lines[b], lines[a]


def misspell_key(lines: list[str], rng: random.Random) -> None:
    at = _line(lines, rng)
    keys = list(re.finditer(r"[A-Za-z_]{2,}(?=:)", lines[at]))
    if keys:
        key = rng.choice(keys)
        word = key.group()
        cut = rng.randrange(len(word))
        new = rng.choice(
            (word[:cut] + word[cut + 1 :], word + "x", word.upper(), "ключ", word[::-1], f"[{word}]", f'"{word}\\n"')
        )
        lines[at] = lines[at][: key.start()] + new + lines[at][key.end() :]


def replace_value(lines: list[str], rng: random.Random) -> None:
    at = _line(lines, rng)
    values = list(re.finditer(r"(?<=: )[^,{}\[\]]+", lines[at]))
    if values:
        value = rng.choice(values)
        lines[at] = lines[at][: value.start()] + rng.choice(NASTY_SCALARS) + lines[at][value.end() :]


def replace_whole_value(lines: list[str], rng: random.Random) -> None:
    at = _line(lines, rng)
    if ": " in lines[at]:
        lines[at] = lines[at].split(": ", 1)[0] + ": " + rng.choice(NASTY_SCALARS)


def strip_unit(lines: list[str], rng: random.Random) -> None:
    at = _line(lines, rng)
    lines[at] = re.sub(r"(\d) [A-Za-z]+(/[a-z]+)?", r"\1", lines[at], count=rng.randint(1, 3))


def nudge_number(lines: list[str], rng: random.Random) -> None:
    at = _line(lines, rng)
    numbers = list(re.finditer(r"\d+(\.\d+)?", lines[at]))
    if numbers:
        number = rng.choice(numbers)
        new = rng.choice(
            ("-" + number.group(), number.group() + "e300", number.group() + "e-300", "0", number.group() * 3, "1e9")
        )
        lines[at] = lines[at][: number.start()] + new + lines[at][number.end() :]


def scale_number(lines: list[str], rng: random.Random) -> None:
    """A change that stays legal most of the time: the file must then load, with finite numbers."""
    at = _line(lines, rng)
    lines[at] = re.sub(r"(?<= )\d+(?= [A-Za-z])", lambda m: str(int(m.group()) * rng.randint(1, 9)), lines[at])


def misname_reference(lines: list[str], rng: random.Random) -> None:
    for at, line in enumerate(lines):
        if re.match(r"(device|node|extends): ", line):
            lines[at] = line[:-1] + rng.choice(("", "x", "-gb"))


def indent(lines: list[str], rng: random.Random) -> None:
    at = _line(lines, rng)
    lines[at] = rng.choice((" ", "\t", "   ", "- ", "# ")) + lines[at]


def nest_deeply(lines: list[str], rng: random.Random) -> None:
    opening, closing = rng.choice((("[", "]"), ("{a: ", "}"), ("- ", "")))
    deep = rng.choice((40, 70, 5000))
    lines.insert(_line(lines, rng), "deep: " + opening * deep + "1" + closing * deep)


def alias_bomb(lines: list[str], rng: random.Random) -> None:
    lines.append("bomb0: &b0 [x, x, x, x, x, x, x, x, x]")
    for level in range(1, rng.choice((3, 9))):
        lines.append(f"bomb{level}: &b{level} [" + ", ".join([f"*b{level - 1}"] * 9) + "]")


def self_alias(lines: list[str], rng: random.Random) -> None:
    lines.insert(_line(lines, rng), rng.choice(("notes: &me [*me]", "sources: &me {a: *me}", "<<: *me", "*me : 1")))


def duplicate_key(lines: list[str], rng: random.Random) -> None:
    keys = [line for line in lines if re.match(r"[a-z_]+:", line)]
    if keys:
        lines.append(rng.choice(keys))


def extend(lines: list[str], rng: random.Random) -> None:
    parent = rng.choice(PARENTS)
    lines.insert(_line(lines, rng), f"extends: {parent}")


def truncate(lines: list[str], rng: random.Random) -> None:
    at = _line(lines, rng)
    del lines[at + 1 :]
    lines[at] = lines[at][: rng.randint(0, len(lines[at]))]


def second_document(lines: list[str], rng: random.Random) -> None:
    lines.insert(_line(lines, rng), rng.choice(("---", "...", "--- !!map", "%TAG ! x:")))


def odd_bytes(lines: list[str], rng: random.Random) -> None:
    at = _line(lines, rng)
    cut = rng.randint(0, len(lines[at]))
    lines[at] = lines[at][:cut] + chr(rng.choice(ODD)) + lines[at][cut:]


def tag_value(lines: list[str], rng: random.Random) -> None:
    at = _line(lines, rng)
    lines[at] = lines[at].replace(": ", ": " + rng.choice(TAGS), 1)


MUTATIONS: tuple[Mutation, ...] = (
    drop_line,
    double_line,
    swap_lines,
    misspell_key,
    replace_value,
    replace_value,
    replace_whole_value,
    strip_unit,
    nudge_number,
    scale_number,
    scale_number,
    misname_reference,
    indent,
    nest_deeply,
    alias_bomb,
    self_alias,
    duplicate_key,
    extend,
    truncate,
    second_document,
    odd_bytes,
    tag_value,
)


def _originals() -> list[Path]:
    return [p for kind in ("accelerator", "node", "cluster", "memory", "price") for p in content.catalog(kind).values()]


def mutated(seed: int) -> tuple[bytes, str]:
    """The bytes of the mutated file of a seed, and what was done to which file."""
    rng = random.Random(seed)
    original = rng.choice(_originals())
    lines = original.read_text("utf-8").split("\n")
    done = []
    for mutation in rng.choices(MUTATIONS, k=rng.choice((1, 1, 2, 3))):
        if lines:
            mutation(lines, rng)
            done.append(mutation.__name__)
    raw = rng.choice(("\n", "\n", "\n", "\r\n", "\r")).join(lines).encode("utf-8", "surrogatepass")
    if rng.random() < 0.03:
        cut = rng.randint(0, len(raw))
        raw = raw[:cut] + bytes(rng.randrange(256) for _ in range(rng.randint(1, 8))) + raw[cut:]
    return raw, f"{original.name}: {' + '.join(done)}"


def load_any(path: Path) -> Any:
    """Load a file of any hardware kind the way the program does, by its `schema:` key."""
    data = read(path).data
    schema = data.get("schema") if isinstance(data, dict) else None
    if schema == "hwsim/prices@1":
        return validate(PricesFile, read(path)).model_dump()
    if schema == "hwsim/memory@1":
        return validate(MemoryFile, read(path)).model_dump()
    return load_hardware(str(path)).platform


def numbers_of(value: Any) -> list[float]:
    """Every number inside dataclasses, mappings and sequences."""
    if isinstance(value, Calibration):  # fitted, not of the file; log residuals may be negative
        return []
    if dataclasses.is_dataclass(value):
        return [n for f in dataclasses.fields(value) for n in numbers_of(getattr(value, f.name))]
    if isinstance(value, dict):
        return [n for item in value.values() for n in numbers_of(item)]
    if isinstance(value, list | tuple):
        return [n for item in value for n in numbers_of(item)]
    return [float(value)] if isinstance(value, int | float) and not isinstance(value, bool) else []


def attempt(seed: int, folder: Path) -> str:
    """Load the file of one seed; returns the class of the outcome and asserts that it is an allowed one."""
    raw, what = mutated(seed)
    path = folder / "subject.yaml"
    path.write_bytes(raw)
    began = time.perf_counter()
    try:
        loaded = load_any(path)
    except HwsimError as error:
        outcome = type(error).__name__
        assert error.exit_code == 2, (seed, what, error)
        assert error.what and len(error.render()) < 20_000, (seed, what)
        whole_file = error.what in {"file is not UTF-8 text", "file is too large"}
        assert whole_file or re.search(r"\.yaml:\d+", error.where), (seed, what, error.render())
    except Exception as error:
        pytest.fail(f"seed {seed} ({what}): {type(error).__name__}: {str(error)[:300]}")
    else:
        outcome = "loaded"
        numbers = numbers_of(loaded)
        assert numbers and all(math.isfinite(n) and n >= 0 for n in numbers), (seed, what)
    assert time.perf_counter() - began < SECONDS_EACH, (seed, what)
    return outcome


def _run(seeds: range, folder: Path) -> Counter[str]:
    outcomes = Counter(attempt(seed, folder) for seed in seeds)
    # a harness whose files all fail, or all load, would prove nothing
    assert outcomes["InputError"] > 0.2 * len(seeds) and outcomes["loaded"] > 0.1 * len(seeds), outcomes
    assert outcomes["UnknownNameError"] > 0, outcomes
    return outcomes


def test_mutations_change_the_file() -> None:
    originals = {p.read_bytes() for p in _originals()}
    changed = sum(mutated(seed)[0] not in originals for seed in range(200))
    assert changed > 170  # a few mutations leave a file as it is; which ones depends on the catalog


def test_mutated_files_give_typed_errors_or_finite_devices(tmp_path: Path) -> None:
    _run(range(300), tmp_path)


@pytest.mark.long
def test_ten_thousand_mutated_files(tmp_path: Path) -> None:
    outcomes = _run(range(1000, 11_000), tmp_path)
    assert sum(outcomes.values()) == 10_000
