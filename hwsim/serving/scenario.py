"""Serving scenarios as files: `hwsim/serving-scenario@1`, the options of a run under their Python names.

```yaml
schema: hwsim/serving-scenario@1
workload: llama-2-7b
hw: a10
replicas: 4
rate: 6
prompt: {median: 32, mean: 256, max: 6000}
migration: {gap: 0.2, period: 1 s}
application: [{name: plan, prompt: 500, output: 60}, {name: answer, prompt: 900, output: 40, after: [plan]}]
```
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from hwsim.errors import InputError, unknown_name
from hwsim.schema.reader import read
from hwsim.serving.arrivals import Lengths, unit_gaps
from hwsim.serving.fields import fields_of
from hwsim.serving.plugins import beside
from hwsim.serving.sessions import Applications, Call, ClosedLoop
from hwsim.serving.traces import Trace

SCHEMA: Final = "hwsim/serving-scenario@1"
_CALL: Final = {"name": "text", "prompt": "number", "output": "number", "delay": "time"}
_MOST_TURNS: Final = 10**7  # requests of a closed loop
_LOOP: Final = {"users": "number", "turns": "number", "think": "time", "history": "number"}


def is_scenario(workload: str) -> bool:
    """Whether a workload argument names a file of a serving scenario."""
    path = Path(workload)
    return path.suffix in (".yaml", ".yml") and path.is_file() and SCHEMA in path.read_text(errors="replace")


def read_scenario(path: Path | str, known: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a scenario file.

    Parameters
    ----------
    known: names of options that a run takes.

    Raises
    ------
    InputError: not a mapping, no workload or hardware. UnknownNameError: an unknown option, with the nearest.
    """
    data = read(Path(path)).data
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise InputError(f"a serving scenario starts with `schema: {SCHEMA}`", where=str(path))
    given = {str(name): value for name, value in data.items() if name not in ("schema", "title", "sources", "notes")}
    names = (*known, "workload", "hw")
    for name in given:
        if name not in names:
            raise unknown_name("option", name, names, where=str(path))
        _typed(name, given[name], known.get(name), str(path))
    if not given.get("workload"):
        raise InputError("a serving scenario needs a workload", where=str(path), fix="workload: llama-2-7b")
    if given.get("trace") is not None and not Path(str(given["trace"])).is_absolute():
        given["trace"] = Path(path).parent / str(given["trace"])
    if isinstance(given.get("also"), list):
        given["also"] = [_placed(row, Path(path)) if isinstance(row, dict) else row for row in given["also"]]
    return _placed(given, Path(path))


def _placed(given: dict[str, Any], file: Path) -> dict[str, Any]:
    """Options whose Python files lie beside the scenario file."""
    return given | {name: beside(given[name], file.parent) for name in ("policy", "router") if name in given}


_WHOLE: Final = ("requests", "kv_blocks", "queue_limit", "max_batch", "chunk")
_PAIRS: Final = (str, dict, bool)  # NAME=VALUE text, a mapping, or true for the defaults
_FREE: Final[dict[str, tuple[type, ...]]] = {
    "prompt": (int, float, str, dict), "output": (int, float, str, dict), "trace": (str,), "application": (list,),
    "closed_loop": _PAIRS, "migration": _PAIRS, "autoscale": _PAIRS, "partition": _PAIRS, "failures": (str, list),
    "what_if": (dict,), "limits": (str, dict), "also": (str, list),
    "prefix_cache": _PAIRS,
}  # fmt: skip
_WORDS: Final = {int: "a number", str: "text", dict: "a mapping", list: "a list", bool: "true"}


def _typed(name: str, value: Any, default: Any, where: str) -> None:
    """Refuse a value of another type than the option's. Raises InputError."""
    if value is None:
        return
    if name in _FREE:
        _one_of(name, value, where)
        return
    whole = name in _WHOLE or (isinstance(default, int) and not isinstance(default, bool))
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(default, bool):
        good, kind = isinstance(value, bool), "true or false"
    elif whole:
        good, kind = number and float(value).is_integer(), "a whole number"
    elif isinstance(default, float) or name == "rate":
        good, kind = number, "a number"
    else:
        good, kind = isinstance(value, str), "text"
    if not good:
        raise InputError(f"{name} takes {kind}", where=f"{where}: {name}", seen=repr(value)[:60])


def _one_of(name: str, value: Any, where: str) -> None:
    """Refuse another form than the option knows, and what-ifs without a unit. Raises InputError."""
    kinds = _FREE[name]
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        known = " or ".join(_WORDS[kind] for kind in kinds if kind in _WORDS)
        raise InputError(f"{name} takes {known}", where=f"{where}: {name}", seen=repr(value)[:60])
    for path, number in value.items() if name == "what_if" and isinstance(value, dict) else ():
        if not isinstance(number, str):
            fix = "write it with its unit, e.g. '3 TB/s'"
            raise InputError("a what-if without a unit", where=f"{where}: what_if {path}", seen=repr(number), fix=fix)


def answering(given: Mapping[str, Any]) -> tuple[Any, Trace] | None:
    """A source that answers (closed loop or application) and its requests as a trace; None where none is asked.

    Raises InputError, UnknownNameError.
    """
    loop, calls = given.get("closed_loop"), given.get("application")
    if loop is not None and calls is not None:
        raise InputError("a run has a closed loop or an application, not both", where="closed_loop")
    if (loop is not None or calls is not None) and (given.get("trace") is not None or given.get("capacity")):
        raise InputError("a closed loop or application takes no trace and no capacity search", where="closed_loop")
    if loop is not None:
        return _loop(given, loop)
    return None if calls is None else _application(given, calls)


def _loop(given: Mapping[str, Any], loop: Any) -> tuple[Any, Trace]:
    fields = {"users": 8.0, "turns": 4.0, "think": 1.0, "history": 0.0, **fields_of(loop, _LOOP, "--closed-loop")}
    users, turns, history = int(fields["users"]), int(fields["turns"]), bool(fields["history"])
    if not (1 <= users <= _MOST_TURNS and 1 <= turns <= _MOST_TURNS and users * turns <= _MOST_TURNS):
        raise InputError(
            f"--closed-loop takes 1 to {_MOST_TURNS:,} users x turns",
            where="--closed-loop",
            seen=f"{fields['users']:g} users x {fields['turns']:g} turns",
        )
    count = users * turns
    prompt, output = (_column(given, name, count) for name in ("prompt", "output"))
    source = ClosedLoop(users, turns, fields["think"], prompt, output, history=history, seed=int(given["seed"]))
    longest = array("l", prompt)
    if history:
        totals = np.add(prompt, output).reshape(users, turns).cumsum(axis=1) - np.reshape(output, (users, turns))
        longest = array("l", totals.ravel().tolist())
    return source, Trace("closed loop", array("d", bytes(8 * count)), longest, output)


def _column(given: Mapping[str, Any], name: str, count: int) -> array[int]:
    sizes = Lengths.of(given[name], f"--{name}")
    return array("l", sizes.draw(given["lengths"], count, int(given["seed"]), 2 if name == "prompt" else 3).tolist())


def _application(given: Mapping[str, Any], calls: Any) -> tuple[Any, Trace]:
    if not isinstance(calls, list | tuple) or not calls:
        raise InputError("an application is a list of calls", where="application", seen=str(calls)[:60])
    made = [_call(item) for item in calls]
    copies = int(given.get("requests") or 1)
    gaps = unit_gaps(given["arrivals"], copies, int(given["seed"])) / float(given.get("rate") or 1.0)
    starts = np.cumsum(gaps) - gaps[0]
    source = Applications(made, starts.tolist())
    prompt, output = (array("l", [getattr(c, name) for c in made]) for name in ("prompt", "output"))
    return source, Trace("application", array("d", bytes(8 * len(made))), prompt, output)


def _call(item: Any) -> Call:
    if not isinstance(item, Mapping):
        raise InputError("a call is a mapping of name, prompt, output, after, delay", seen=str(item)[:60])
    after = item.get("after") or ()
    fields = fields_of({k: v for k, v in item.items() if k != "after"}, _CALL, "application")
    missing = [name for name in ("name", "prompt", "output") if name not in fields]
    if missing or fields["prompt"] < 1 or fields["output"] < 1:
        raise InputError(
            "a call needs a name, prompt and output tokens of at least 1", where="application", seen=str(item)[:60]
        )
    names = (after,) if isinstance(after, str) else tuple(str(n) for n in after)
    return Call(fields["name"], int(fields["prompt"]), int(fields["output"]), names, fields.get("delay", 0.0))
