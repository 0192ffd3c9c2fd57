"""The command line: a table of verbs whose modules load only when they are called.

``hwsim --help`` imports typer alone. Each verb lives in ``hwsim/cli/<module>.py`` as a function ``command`` whose heavy
imports are inside. Results go to stdout, everything else to stderr; see `hwsim.errors` for exit codes.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, Final

import typer
from typer.core import TyperGroup

# verb -> (module of hwsim.cli, one line of help). The order is the order of --help.
VERBS: Final[dict[str, tuple[str, str]]] = {
    "evaluate": ("evaluate", "One point: time, memory, energy and cost of a model on hardware."),
    "compare": ("compare", "The same scenario on several machines, side by side."),
    "roofline": ("roofline", "Which operators are bound by compute, memory or links; table and plot."),
    "explain": ("explain", "Formula, operands and source of any number of an estimate."),
    "map": ("map", "Map a workload onto the memories of a machine: tiles, placement, proof of optimality."),
    "timeline": ("timeline", "One phase on the clock: streams, overlap, bubbles; Gantt chart and Perfetto trace."),
    "simulate": ("simulate", "Serve a stream of requests: TTFT, TPOT, tails, goodput under load."),
    "pair": ("pair", "Prompts on one machine, tokens on another: what handing the cache over costs."),
    "speculate": ("speculate", "A draft model guesses, the target checks; on one machine or on two at once."),
    "synthesize": ("synthesize", "Resources and cycles of a small network built into an FPGA."),
    "predict": ("predict", "Kernel times with bands for the rows of a CSV file."),
    "validate": ("validate", "Score hwsim against measured runs, exact cases or real engines."),
    "measure": ("measure", "Run micro-benchmarks on this machine."),
    "calibrate": ("calibrate", "Fit a calibration file to measured runs."),
    "reproduce": ("reproduce", "Published claims: predicted beside published."),
    "list": ("list", "What the catalog holds: hardware, models, mappers, prices."),
    "show": ("show", "One catalog entry with its sources; --resolved merges extends."),
    "check": ("check", "Lint files: machines, models, prices, serving scenarios, claims."),
    "import": ("import_", "Turn a Hugging Face config.json into a workload file."),
    "doctor": ("doctor", "Environment, solvers, optional packages, content."),
}


_INTERRUPTED: Final = 130


class LazyGroup(TyperGroup):
    """Lists verbs from `VERBS` and imports a verb's module when it is run."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [verb for verb, (module, _) in VERBS.items() if _exists(module)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in VERBS or not _exists(VERBS[cmd_name][0]):
            return None
        # Listing needs only the name and one line; the real command is built for the verb that was typed
        # and for shell completion of its options.
        invoked = (
            cmd_name in sys.argv[1:] or "_HWSIM_COMPLETE" in os.environ or getattr(ctx, "resilient_parsing", False)
        )
        return _load(cmd_name) if invoked else _stub(cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        from hwsim.errors import unknown_name

        if args and not args[0].startswith("-") and args[0] not in self.list_commands(ctx):
            raise unknown_name(
                "command", args[0], self.list_commands(ctx), where="hwsim COMMAND", fix="see hwsim --help"
            )
        name, _, rest = super().resolve_command(ctx, args)
        command = _load(args[0], rest)
        _refuse_repeated(command, rest)
        return name, command, rest


def _refuse_repeated(command: Any, arguments: Sequence[str]) -> None:
    """An option that takes one value, given twice: the parser would keep the last. Raises InputError."""
    from hwsim.errors import InputError

    for option in command.params:
        names = getattr(option, "opts", [])
        if getattr(option, "multiple", True) or getattr(option, "is_flag", False) or option.nargs != 1:
            continue
        given = [text for text in arguments if text.partition("=")[0] in names and text.startswith("-")]
        if len(given) > 1:
            seen = " ".join(arguments)[:80]
            raise InputError(f"{given[0].partition('=')[0]} is given twice", where="options", seen=seen, fix="keep one")


def _exists(module: str) -> bool:
    return os.path.exists(os.path.join(os.path.dirname(__file__), f"{module}.py"))


def _load(verb: str, arguments: Sequence[str] = ()) -> Any:
    """The command of a verb; a verb whose module has `mode_of` may hand its arguments to another module."""
    module = importlib.import_module(f"hwsim.cli.{VERBS[verb][0]}")
    mode = module.mode_of(arguments) if hasattr(module, "mode_of") else None
    if mode is not None and _exists(mode):
        module = importlib.import_module(f"hwsim.cli.{mode}")
    if hasattr(module, "app"):
        return typer.main.get_command(module.app)
    single = typer.Typer(
        add_completion=False, rich_markup_mode=None, context_settings={"help_option_names": ["-h", "--help"]}
    )
    single.command(name=verb)(module.command)
    return typer.main.get_command(single)


def _stub(verb: str) -> Any:
    from typer.core import TyperCommand

    return TyperCommand(name=verb, help=VERBS[verb][1])


app = typer.Typer(
    cls=LazyGroup,
    help="Which hardware should run a model, how fast, at what energy and cost, and why.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _print_version(value: bool) -> None:
    if value:
        from hwsim import __version__

        typer.echo(f"hwsim {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_print_version, is_eager=True, help="Print the version."),
) -> None:
    """Options before the verb."""
    del version


def main() -> None:
    """Console entry point: runs a verb and turns every failure into a message and an exit code."""
    _usable_streams()
    sys.exit(run(sys.argv[1:]))


def _usable_streams() -> None:
    """Streams that were closed swallow what is written; characters that a terminal cannot show become `?`."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def run(arguments: list[str]) -> int:
    """Run one command line; returns the exit code instead of exiting. A reader that closes the pipe is no failure."""
    try:
        code = _run(arguments)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        _drop_output()
        return 0
    except OSError as error:  # a full disk behind stdout
        _drop_output()
        return _report(f"error: cannot write the result\n  where: stdout\n  value: {error.strerror or error}", 2)


def _drop_output() -> None:
    """Let the interpreter flush what is left into nothing when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(arguments: list[str]) -> int:
    from hwsim.errors import HwsimError

    try:
        result = app(args=arguments, prog_name="hwsim", standalone_mode=False)
    except HwsimError as error:
        if os.environ.get("HWSIM_DEBUG") and error.__cause__ is not None:
            raise
        return _report(f"error: {error.render()}", error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return _report("interrupted", _INTERRUPTED)
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
        return _unexpected(error)
    except MemoryError as error:
        return _report(
            f"error: this needs more memory than there is\n  value: {error}\n  fix:   ask for less at once", 3
        )
    except Exception as error:
        return _unexpected(error)
    if result == _INTERRUPTED:  # the parser turns Ctrl-C into this exit code itself
        return _report("interrupted", _INTERRUPTED)
    return result if isinstance(result, int) else 0


def _unexpected(error: Exception) -> int:
    """A wrong option (the parser's own exceptions) is exit 2; anything else is a bug, exit 1."""
    if type(error).__name__ == "NoArgsIsHelpError":
        print(error)
        return 0
    if hasattr(error, "format_message") and hasattr(error, "exit_code"):
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "hwsim"
        return _report(f"error: {error.format_message()}\n  where: {command}\n  fix:   see `{command} --help`", 2)
    if os.environ.get("HWSIM_DEBUG"):
        raise error
    what = f"{type(error).__name__}: {error}"
    return _report(f"bug in hwsim: {what}\n  fix:   rerun with HWSIM_DEBUG=1 and report the traceback", 1)


def _report(message: str, code: int) -> int:
    print(message, file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
