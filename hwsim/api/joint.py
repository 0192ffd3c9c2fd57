"""Public functions for two machines on one request: `pair` (Splitwise) and `speculate` (one or two machines)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from hwsim import units
from hwsim.api.answer import Answer
from hwsim.api.evaluation import evaluate
from hwsim.errors import InputError
from hwsim.explore.teams import Handoff, Speculation, pair_document, speculation_document
from hwsim.ir.numbers import Num
from hwsim.schema.loader import load_hardware


class Pair(Answer):
    """Result of `pair` and `speculate`: the document and its notebook view."""

    def __str__(self) -> str:
        from hwsim.report.teams import team_table

        return team_table(self.document)


def pair(workload: str, hardware: str, *, token_on: str | None = None, **options: Any) -> Pair:
    """Prompts on one machine and tokens on another, with the cache handed over (Splitwise).

    Parameters
    ----------
    hardware, token_on: machine of the prompt, and of the tokens [the same kind].
    options: network (bytes/s of one device, or ``"50 GB/s"``) [the scale-out link of the prompt machine], and of
        `hwsim.explore.teams.Handoff`: latency_s, layer_s, mode; the others are those of `evaluate`.

    Raises
    ------
    InputError: no network is known. Those of `evaluate`.
    """
    how = {name: options.pop(name) for name in ("latency_s", "layer_s", "mode") if name in options}
    rate = _network(hardware, options.pop("network", None))
    prompt = evaluate(workload, hardware, **options).document
    token = evaluate(workload, token_on, **options).document if token_on else prompt
    return Pair(pair_document(prompt, token, Handoff(rate, **how)))


def _network(hardware: str, given: Num | str | None) -> float:
    if given is not None:
        rate = units.parse(given, "bytes_per_s", where="--network") if isinstance(given, str) else float(given)
        if not 0 < rate < np.inf:
            raise InputError(
                "the network's rate must be above 0", where="--network", seen=str(given), fix='e.g. "50 GB/s"'
            )
        return rate
    link = load_hardware(hardware).platform.scale_out
    if link is None:
        raise InputError(f"{hardware} has no network", where="network", fix='a cluster file, or network="50 GB/s"')
    return float(np.max(link.bandwidth_bytes_per_s))


def speculate(
    workload: str,
    hardware: str,
    *,
    draft: str,
    draft_on: str | None = None,
    draft_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> Pair:
    """A draft model guesses, the target checks; on one machine or on two at once (`overlap`, Mirror-SD).

    Parameters
    ----------
    draft, draft_on: model and machine of the draft [the target's]. draft_options: options of the draft's `evaluate`.
    options: draft_tokens [4], acceptance [0.8], overlap and channel_s of `hwsim.explore.teams.Speculation`; the others
        are those of the target's `evaluate`.

    Raises
    ------
    InputError: shares outside [0, 1]. Those of `evaluate`.
    """
    how = Speculation(**{f.name: options.pop(f.name) for f in fields(Speculation) if f.name in options})
    batch, output, prompt = options.pop("batch", 1), options.pop("output", 128), options.pop("prompt", None)
    prompt = 512 if prompt is None else prompt
    sizes = {"batch": batch, "prompt": prompt, "output": output}
    # the tokens of a check share one cache: as many sequences more, each with so much less of it
    share = how.draft_tokens + 1
    wide = {"batch": batch * share, "prompt": max((prompt + output // 2) // share, 1), "output": 2}
    own = {**({} if draft_on else {k: v for k, v in options.items() if k == "tp"}), **(draft_options or {})}
    return Pair(
        speculation_document(
            evaluate(workload, hardware, **sizes, **options).document,
            evaluate(workload, hardware, **wide, **{**options, "check_fit": False}).document,
            evaluate(draft, draft_on or hardware, **sizes, **own).document,
            how,
        )
    )
