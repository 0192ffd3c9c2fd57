"""`hwsim explain WORKLOAD [SUBJECT] --hw NAME`, or `hwsim explain RESULT.json SUBJECT`: the working of any number."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from hwsim.cli import groups as g
from hwsim.cli import options as o
from hwsim.errors import InputError

DEFAULT: Final = "tpot_s"
MAPPING: Final = "hwsim/mapping@1"
_WHOLE: Final = "give a document as evaluate or map --format json writes it"
_SAVED: Final = ("hwsim/estimate@1", MAPPING)


class Run(g.Layout):
    """How the estimate whose numbers are explained is made."""

    efficiency: o.Efficiency = "calibrated"


@g.grouped
def command(
    workload: Annotated[
        str, typer.Argument(metavar="WORKLOAD", help="A model as in evaluate, or a saved estimate or mapping (JSON).")
    ],
    subject: Annotated[
        str,
        typer.Argument(
            metavar="SUBJECT",
            help="Metric, phase, operator (decode.block.qkv), memory; of a mapping GEMM, GEMM.energy, GEMM.LEVEL.",
        ),
    ] = DEFAULT,
    hw: Annotated[str | None, typer.Option("--hw", metavar="NAME", help="Accelerator, node or cluster.")] = None,
    *,
    request: g.Request,
    run: Run,
    mapping: g.Mapping,
    set_: o.Set = None,
) -> None:
    """Formula, operands and source of a number."""
    from hwsim.schema.malformed import reading

    saved = document = _saved(workload)
    if document is not None and document["schema"] == MAPPING:
        from hwsim.report.mapping_working import explain_mapping

        with reading(workload, _WHOLE):
            first = str(document["operators"][0]["name"])
            text = explain_mapping(document, first if subject == DEFAULT else subject)
        o.emit(text, None)
        return
    if document is None:
        document = _evaluated(workload, hw, what_if=o.parse_set(set_), **g.keywords(request, run, mapping))
        request.say_unused(document["workload"]["name"], document["phases"][0]["name"])
    from hwsim.report.explain import explain

    if saved is None:
        text = explain(document, _subject(document, subject))
    else:
        with reading(workload, _WHOLE):
            text = explain(document, _subject(document, subject))
    o.emit(text, None)


def _subject(document: dict[str, Any], subject: str) -> str:
    return "latency_s" if subject == "tpot_s" and "tpot_s" not in document["metrics"] else subject


def _evaluated(workload: str, hw: str | None, **options: Any) -> dict[str, Any]:
    """The estimate document of a model. Raises InputError without a machine."""
    if hw is None:
        raise InputError(
            "explain needs a machine", where="--hw", seen="(absent)", fix="hwsim explain llama7b tpot_s --hw a100"
        )
    from hwsim.api import evaluate

    return evaluate(workload, hw, **options, check_fit=False).document


def _saved(name: str) -> dict[str, Any] | None:
    """The estimate document of a JSON file, or None where `name` is no such file (a HF config.json, a model)."""
    path = Path(name)
    if path.suffix != ".json" or not path.is_file():
        return None
    from hwsim.schema.malformed import read_json

    data = read_json(path)
    return data if isinstance(data, dict) and data.get("schema") in _SAVED else None
