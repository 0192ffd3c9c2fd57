"""The machine that a product sees: the device's memories, the engine of its dtype, the width of each tensor."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hwsim.cost.peaks import compute_path
from hwsim.ir.platform import Device
from hwsim.ir.workload import Operator
from hwsim.mapping.decide.products import Bits
from hwsim.mapping.machine import Machine
from hwsim.mapping.plan import Setup, prepare


@dataclass(slots=True)
class Machines:
    """Setups of one device and mapper by dtype, made once each."""

    device: Device
    mapper: str
    objective: str | None
    known: dict[str, Setup] = field(default_factory=dict)

    def setup(self, operator: Operator, bits: Bits) -> Setup:
        """The setup for one product of an operator.

        Raises InputError where the device has no clock or one memory, or gives no energies for the objective.
        """
        path = compute_path(self.device, operator.dtype, operator.unit)
        key = f"{path.unit}/{path.dtype}"
        if key not in self.known:
            only = tuple(c for c in self.device.compute if (c.unit, c.dtype) == (path.unit, path.dtype))
            engine = self.device.with_(compute=only)
            self.known[key] = prepare(engine, objective=self.objective, mapper=self.mapper, dtype=path.dtype)
        setup = self.known[key]
        word = setup.machine.word_bits
        widths = (bits[0] / word, bits[1] / word, bits[2] / word)
        return replace(setup, machine=_with_widths(setup.machine, widths))


def _with_widths(machine: Machine, widths: Bits) -> Machine:
    """The machine with tensors of these widths; operand latches hold one element of each, however wide."""
    latch = machine.levels[0]
    if latch.name == "latch":
        machine = machine.with_level("latch", words=max(latch.words, sum(widths)))
    return machine.with_(widths=widths)
