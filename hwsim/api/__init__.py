"""The public functions: names and numbers in, results out. The CLI is a thin skin over this package."""

from __future__ import annotations

from hwsim.api.answer import Answer
from hwsim.api.evaluation import ENGINES, Evaluation, compare, evaluate, prepare
from hwsim.api.joint import Pair, pair, speculate
from hwsim.api.kernels import predict
from hwsim.api.planning import Placed, Plan, place, plan, plan_stages, plan_training
from hwsim.api.reproduction import Reproduction, reproduce
from hwsim.api.serving import SIMULATE_DEFAULTS, Simulation, simulate
from hwsim.api.synthesis import Synthesis, synthesize
from hwsim.api.timelines import PhaseTimeline, timeline
from hwsim.api.whatif import vary

__all__ = [
    "ENGINES", "SIMULATE_DEFAULTS", "Answer", "Evaluation", "Pair", "PhaseTimeline", "Placed", "Plan", "Reproduction",
    "Simulation", "Synthesis", "compare", "evaluate", "pair", "place", "plan", "plan_stages", "plan_training",
    "predict", "prepare", "reproduce", "simulate", "speculate", "synthesize", "timeline", "vary",
]  # fmt: skip
