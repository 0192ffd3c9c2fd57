"""Groups of options: what typer sees of them, and what a command receives."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from hwsim.cli import groups as g
from hwsim.cli import options as o
from hwsim.errors import InputError, UnitError

RECEIVED: dict[str, object] = {}


class Extra(g.Splits):
    """A group of a verb's own on top of a shared one."""

    depth: Annotated[int, typer.Option("--depth")] = 3
    set_: o.Set = None


@g.grouped
def command(workload: o.Workload, request: g.Request, extra: Extra, *, seed: int = 7, to: g.TableOrJson) -> None:
    """Says what it received."""
    RECEIVED.update(workload=workload, seed=seed, to=to.form("table", "json"), **g.keywords(request, extra))


def _run(*arguments: str) -> dict[str, object]:
    app = typer.Typer()
    app.command()(command)
    RECEIVED.clear()
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return dict(RECEIVED)


def test_options_stand_in_the_place_of_their_group_bases_first() -> None:
    assert list(inspect.signature(command).parameters) == [
        "workload", "batch", "prompt", "output", "weights", "activations", "kv_cache", "tp", "pp", "ep", "depth",
        "set_", "seed", "format_", "out", "force",
    ]  # fmt: skip


def test_a_command_receives_defaults_and_what_is_given() -> None:
    found = _run("m")
    assert (found["batch"], found["prompt"], found["tp"], found["depth"], found["seed"]) == (1, None, 1, 3, 7)
    assert found["what_if"] == {} and found["to"] == "table"
    found = _run("m", "-b", "4", "--weights", "fp8", "--tp", "2", "--depth", "5", "--seed", "9", "--set", "a.b=1 GB/s")
    assert (found["batch"], found["weights"], found["tp"], found["depth"], found["seed"]) == (4, "fp8", 2, 5, 9)
    assert found["what_if"] == {"a.b": "1 GB/s"}


def test_runs_do_not_share_what_they_were_given() -> None:
    _run("m", "-b", "4", "--set", "a=1")
    assert _run("m")["batch"] == 1 and _run("m")["what_if"] == {}


def test_values_are_converted_with_the_option_named() -> None:
    options = g.Mapping(mapper="tiling", map_objective=None, map_budget="200 ms")
    assert options.keywords() == {"mapper": "tiling", "map_objective": None, "map_budget_s": 0.2}
    with pytest.raises(UnitError, match="--map-budget"):
        g.Mapping(mapper="tiling", map_objective=None, map_budget="2 GB").keywords()
    with pytest.raises(InputError, match="PATH=VALUE"):
        Extra(tp=1, pp=1, ep=1, depth=1, set_=["nonsense"]).pick("tp")


def test_the_format_follows_the_file(tmp_path: Path) -> None:
    to = g.Destination(format_="table", out=tmp_path / "x.json", force=False)
    assert to.form("table", "json") == "json"
    with pytest.raises(InputError):
        to.form("table", "csv")


@pytest.mark.parametrize("verb", ["evaluate", "compare", "roofline", "explain", "timeline", "pair", "speculate"])
def test_scenario_verbs_agree_on_names_and_defaults(verb: str) -> None:
    """A scenario reads the same wherever it is asked about."""
    given = inspect.signature(importlib.import_module(f"hwsim.cli.{verb}").command).parameters
    whole = inspect.signature(importlib.import_module("hwsim.cli.evaluate").command).parameters
    shared = [name for name in given if name in whole and name not in ("workload", "hw", "format_")]
    assert {"batch", "prompt", "output", "weights", "kv_cache", "tp", "efficiency"} <= set(shared)
    for name in shared:
        assert given[name].default == whole[name].default and given[name].annotation == whole[name].annotation
