"""`hwsim validate kernels|mapping|serving DIR`: score hwsim against measured runs, exact cases or real engines.

Each kind is a file ``validate_<kind>.py`` beside this one with a function ``command``; it loads when it is called.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

KINDS = {
    "kernels": "Measured kernel runs: error by family, GPU and dtype, share inside the band.",
    "mapping": "Exact cases of tilings: access counts and optima.",
    "serving": "Exact scheduler cases and real-engine runs.",
    "eager": "Whole models in eager PyTorch as the sum of their kernels.",
    "endtoend": "TTFT and TPOT of real serving engines, by model and concurrency.",
    "layouts": "Order and choice of tensor and expert splits against measured serving runs.",
}


class _Kinds(TyperGroup):
    def list_commands(self, ctx: Any) -> list[str]:
        return [
            kind for kind in KINDS if os.path.exists(os.path.join(os.path.dirname(__file__), f"validate_{kind}.py"))
        ]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in self.list_commands(ctx):
            return None
        import sys

        return _load(cmd_name) if cmd_name in sys.argv else TyperCommand(name=cmd_name, help=KINDS[cmd_name])

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        from hwsim.errors import unknown_name

        if args and not args[0].startswith("-") and args[0] not in self.list_commands(ctx):
            raise unknown_name("kind of validation", args[0], self.list_commands(ctx), where="hwsim validate KIND DIR")
        name, _, rest = super().resolve_command(ctx, args)
        return name, _load(args[0]), rest


def _load(kind: str) -> Any:
    single = typer.Typer(
        add_completion=False, rich_markup_mode=None, context_settings={"help_option_names": ["-h", "--help"]}
    )
    single.command(name=kind)(importlib.import_module(f"hwsim.cli.validate_{kind}").command)
    return typer.main.get_command(single)


app = typer.Typer(
    cls=_Kinds,
    help="Score hwsim against measured runs, exact cases or real engines.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _root() -> None:
    """Score hwsim against measured runs, exact cases or real engines."""
