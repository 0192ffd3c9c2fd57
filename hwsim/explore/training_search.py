"""The best layout for a training step: every legal split and micro-batch that fits, ranked by tokens per second."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from hwsim.errors import InfeasibleError, InputError
from hwsim.explore.plan_question import sized
from hwsim.explore.training import WEIGHT_BYTES, Pass, Recipe, Step, bytes_per_parameter, cost_pass, step_of
from hwsim.frontends.formats import Formats
from hwsim.ir.platform import Platform
from hwsim.ir.scenario import Scenario
from hwsim.mapping.parallelism.layouts import Extents, Layout, enumerate_layouts
from hwsim.units import gib

SCHEMA: Final = "hwsim/training@1"
MICRO_BATCHES: Final = (1, 2, 4, 8, 16)
RANKED: Final = 12


@dataclass(frozen=True, slots=True)
class Course:
    """The question: a model, a machine, a recipe and how many devices."""

    model: Any
    platform: Platform
    formats: Any
    recipe: Recipe
    devices: int
    efficiency: str = "calibrated"


TRAINING_DEFAULTS: Final[Mapping[str, Any]] = {"devices": None, "global_batch": None, "zero": 1, "recompute": False}


def train(
    model: Any, platform: Platform, scenario: Scenario, asked: Mapping[str, Any], about: Mapping[str, Any]
) -> dict[str, Any]:
    """`training_plan` of a resolved question; `asked` has the keys of `TRAINING_DEFAULTS`. Raises InputError."""
    if asked["global_batch"] is None:
        raise InputError("a training step needs its number of sequences", where="--train", fix="--train 1536")
    platform, devices = sized(platform, asked["devices"])
    formats = Formats.of(scenario.weights, scenario.activations or None, scenario.kv_cache or None)
    if formats.weights.bits != 8 * WEIGHT_BYTES:
        raise InputError(
            "the training model has 16-bit weights", where="--weights", seen=formats.weights.name, fix="bf16"
        )
    recipe = Recipe(int(np.max(scenario.prompt_tokens)), asked["global_batch"], asked["zero"], bool(asked["recompute"]))
    return training_plan(Course(model, platform, formats, recipe, devices, scenario.efficiency), about)


def training_plan(course: Course, about: Mapping[str, Any]) -> dict[str, Any]:
    """The `hwsim/training@1` document. Raises InfeasibleError: nothing is legal, divides the batch or fits."""
    steps, refused = steps_of(course)
    if not steps:
        reasons = ", ".join(f"{reason} ({count})" for reason, count in refused.most_common(3))
        raise InfeasibleError("no legal layout divides the batch", where="--global-batch", seen=reasons)
    fitting = [step for step in steps if step.needed_bytes <= step.usable_bytes]
    if not fitting:
        raise _too_big(course, min(steps, key=lambda s: s.needed_bytes - s.usable_bytes))
    best: dict[Layout, Step] = {}
    for step in fitting:
        if step.layout not in best or step.time_s < best[step.layout].time_s:
            best[step.layout] = step
    ranked = sorted(best.values(), key=lambda s: (s.time_s, s.needed_bytes))
    recipe = course.recipe
    return {
        "schema": SCHEMA,
        **about,
        "devices": course.devices,
        "recipe": {
            "seq": recipe.seq,
            "global_batch": recipe.global_batch,
            "zero": recipe.zero,
            "recompute": "full" if recipe.recompute else "none",
            "bytes_per_parameter": bytes_per_parameter(recipe.zero, ranked[0].layout.dp),
        },
        "considered": {
            "layouts": len({s.layout for s in steps}),
            "points": len(steps),
            "fit": len(best),
            "refused": dict(refused.most_common()),
        },
        "chosen": row_of(ranked[0]),
        "ranking": [row_of(step) for step in ranked[:RANKED]],
    }


def steps_of(course: Course) -> tuple[list[Step], Counter[str]]:
    """Every layout on all devices and micro-batch that divides the batch, priced; one engine call a tensor group."""
    graph = course.model.graph(course.model.phases[0], 1, course.recipe.seq, 0, course.formats)
    legal = enumerate_layouts(Extents.of(graph), course.platform, course.devices)
    refused: Counter[str] = Counter(legal.refused)
    passes: dict[tuple[int, int, bool], Pass] = {}
    steps: list[Step] = []
    sizes = np.array(MICRO_BATCHES, dtype=float)
    for layout in legal.layouts:
        if layout.devices != course.devices or layout.ep > layout.tp:
            continue
        key = (layout.tp, layout.ep, layout.sp)
        if key not in passes:
            passes[key] = cost_pass(
                course.model, course.platform, layout, sizes, course.recipe, course.formats, course.efficiency
            )
        share = course.recipe.global_batch // layout.dp
        if course.recipe.global_batch % layout.dp:
            refused["replicas do not divide the batch"] += 1
            continue
        for at, size in enumerate(MICRO_BATCHES):
            if share % size == 0:
                steps.append(step_of(passes[key], at, layout, size, course.recipe, course.platform))
    return steps, refused


def _too_big(course: Course, least: Step) -> InfeasibleError:
    short = least.needed_bytes - least.usable_bytes
    where = f"{least.layout}, micro-batch {least.micro_batch}, ZeRO {course.recipe.zero}"
    return InfeasibleError(
        f"training {course.model.name} fits in no layout of {course.devices} devices: memory, {gib(short)} short each",
        where=f"the least short is {where}",
        seen=f"state {gib(least.state_bytes)} + activations {gib(least.activation_bytes)} > {gib(least.usable_bytes)}",
        fix="more --devices, a higher --zero, --recompute, or a shorter --prompt",
        budget={"short_bytes": short},
    )


def row_of(step: Step) -> dict[str, Any]:
    """Plain data of one step."""
    layout = step.layout
    return {
        "tp": layout.tp,
        "pp": layout.pp,
        "dp": layout.dp,
        "ep": layout.ep,
        "sp": layout.sp,
        "micro_batch": step.micro_batch,
        "micro_batches": step.micro_batches,
        "step_s": step.time_s,
        "tokens_per_s": step.tokens / step.time_s,
        "tokens_per_s_device": step.tokens / step.time_s / layout.devices,
        "flop_per_s_device": step.flop_per_s_device,
        "mfu": step.flop_per_s_device / step.peak_flop_per_s,
        "bubble": step.bubble,
        "pipeline_s": step.pipeline_s,
        "gradients_exposed_s": step.gradients_s,
        "optimizer_s": step.optimizer_s,
        "state_bytes": step.state_bytes,
        "activation_bytes": step.activation_bytes,
        "usable_bytes": step.usable_bytes,
    }
