"""A slow scheduler simulation from first principles: one event at a time, every request in a list, no shortcuts.

Written from the published rules of the scheduler set that the exact cases come from, and from nothing in
`hwsim.serving`: it shares no code with what it checks.
"""

from __future__ import annotations

import csv
import json
import random
from dataclasses import dataclass, field
from heapq import heappop, heappush
from pathlib import Path
from typing import Any

CONSTANTS = {"t0": 0.001, "w": 0.006, "c": 2.7e-5, "kv": 4.9e-8, "pa": 1.3e-9}
ARRIVE, STAGE_END = 0, 1


@dataclass(eq=False)
class Job:
    """A request; `prefill`, `decode` change at a restart, which turns generated tokens into prompt."""

    arrival: float
    prefill: int
    decode: int
    done: int = 0
    restarts: int = 0
    first: float = -1.0
    end: float = -1.0
    scheduled: float = -1.0
    running: bool = False

    @property
    def decoding(self) -> bool:
        return self.done > self.prefill

    @property
    def completed(self) -> bool:
        return self.done == self.prefill + self.decode

    def restart(self) -> None:
        total = self.prefill + self.decode
        self.prefill, self.decode = self.done, total - self.done
        self.done, self.restarts, self.running = 0, self.restarts + 1, False


@dataclass
class Server:
    """One replica: queue, requests that ran and were not finished, blocks of each request, batches at its stages."""

    case: dict[str, Any]
    queue: list[Job] = field(default_factory=list)
    ran: list[Job] = field(default_factory=list)
    blocks: dict[int, int] = field(default_factory=dict)
    flying: int = 0
    waited: int = 0

    def __post_init__(self) -> None:
        self.stages = self.case["pipeline_stages"]
        self.lines: list[list[Any]] = [[] for _ in range(self.stages)]
        self.busy = [False] * self.stages
        self.rule = self.case["scheduler"]
        self.micro = self.rule["batch_size_cap"] // self.stages
        self.margin = int(self.rule["watermark_blocks_fraction"] * self.rule["num_blocks"])

    # ---- memory ----

    @property
    def free(self) -> int:
        return int(self.rule["num_blocks"]) - sum(self.blocks.values())

    def room(self, job: Job) -> bool:
        if id(job) in self.blocks:
            return self.free >= 1
        return self.free - -(-job.prefill // self.rule["block_size"]) >= self.margin

    def take(self, job: Job) -> None:
        size = self.rule["block_size"]
        if id(job) not in self.blocks:
            self.blocks[id(job)] = -(-job.prefill // size)
        elif job.done > self.blocks[id(job)] * size:
            self.blocks[id(job)] += 1

    def lose(self, job: Job) -> None:
        job.restart()
        del self.blocks[id(job)]
        self.queue.insert(0, job)

    def room_or_victims(self, job: Job) -> bool:
        """The last of those that ran loses its cache until a block is free; at the end the request itself."""
        while not self.room(job):
            if not self.ran:
                self.lose(job)
                return False
            self.lose(self.ran.pop())
        return True

    # ---- batches: (request, tokens) ----

    def batch(self) -> list[tuple[Job, int]]:
        return getattr(self, "_" + self.rule["name"])()  # type: ignore[no-any-return]

    def _orca(self) -> list[tuple[Job, int]]:
        cap, whole = self.rule["batch_size_cap"], 4096 // self.rule["block_size"]
        out = []
        while self.ran and len(out) < cap:
            out.append((self.ran.pop(0), 1))
        while self.queue and len(out) < cap and self.free >= whole:
            job = self.queue.pop(0)
            self.blocks[id(job)] = whole
            out.append((job, job.prefill))
        return out

    def _vllm(self) -> list[tuple[Job, int]]:
        out: list[tuple[Job, int]] = []
        while self.queue:
            job = self.queue[0]
            padded = (len(out) + 1) * max([job.prefill] + [n for _, n in out])
            full = len(self.blocks) == self.rule["batch_size_cap"] or len(out) == self.micro
            if not self.room(job) or padded > self.rule["max_tokens_in_batch"] or full:
                break
            self.take(self.queue.pop(0))
            out.append((job, job.prefill))
        return out or self._decodes_by_arrival()

    def _decodes_by_arrival(self) -> list[tuple[Job, int]]:
        out: list[tuple[Job, int]] = []
        self.ran.sort(key=lambda job: job.arrival)
        while self.ran and len(out) < self.micro:
            job = self.ran.pop(0)
            if self.room_or_victims(job):
                self.take(job)
                out.append((job, 1))
        return out

    def _sarathi(self) -> list[tuple[Job, int]]:
        out: list[tuple[Job, int]] = []
        begun, skipped, used = [], [], 0
        while self.ran and len(out) < self.micro:
            job = self.ran.pop(0)
            if not job.decoding:
                begun.append(job)
            elif self.room_or_victims(job):
                self.take(job)
                out.append((job, 1))
                used += 1
        for job in begun:
            tokens = max(0, min(job.prefill - job.done, self.rule["chunk_size"] - used))
            if tokens:
                out.append((job, tokens))
                used += tokens
            else:
                skipped.append(job)
        self.ran = sorted(skipped + self.ran, key=lambda job: job.arrival)
        while self.queue and len(self.blocks) < self.rule["batch_size_cap"] and len(out) != self.micro:
            job = self.queue[0]
            tokens = max(0, min(job.prefill, self.rule["chunk_size"] - used))
            if not self.room(job) or not tokens:
                break
            self.take(self.queue.pop(0))
            out.append((job, tokens))
            used += tokens
        return out

    def _lightllm(self) -> list[tuple[Job, int]]:
        if not self.ran:
            out = self._light_prompts()
            self.waited = 0 if out else self.waited
            return out
        if self.waited >= self.rule["max_waiting_iters"]:
            self.waited = 0
            out = self._light_prompts()
            if out:
                return out
        self.waited += 1
        out = [(job, 1) for job in self.ran]
        for job, _ in out:
            self.blocks[id(job)] += 1
        self.ran = []
        return out

    def _light_prompts(self) -> list[tuple[Job, int]]:
        out: list[tuple[Job, int]] = []
        held = [(job.done, job.prefill + job.decode - job.done - 1) for job in self.ran]
        while self.queue:
            job = self.queue[0]
            tokens = sum(n for _, n in out) + job.prefill
            if tokens > self.rule["max_tokens_in_batch"] or len(self.blocks) == self.rule["batch_size_cap"]:
                break
            counted, spared = self.rule.get("forecast", (1, 2))
            held.append((job.prefill + counted, job.decode - spared))
            held.sort(key=lambda item: -item[1])
            peak, run = 0, 0
            for rank, (here, left) in enumerate(held, start=1):
                run += here
                peak = max(peak, left * rank + run)
            if peak >= self.rule["num_blocks"]:
                break
            self.blocks[id(job)] = job.prefill
            out.append((self.queue.pop(0), job.prefill))
        return out


class Reference:
    """The whole system: a heap of (time, kind, number, what)."""

    def __init__(self, case: dict[str, Any], rows: list[tuple[float, int, int]]) -> None:
        self.case = case
        self.servers = [Server(case) for _ in range(case["replicas"])]
        self.jobs = [Job(*row) for row in rows]
        self.heap: list[Any] = []
        self.number = self.turn = self.iterations = 0
        self.dice = random.Random(42)
        for job in self.jobs:
            self.push(job.arrival, ARRIVE, job)

    def push(self, time: float, kind: int, what: Any) -> None:
        self.number += 1
        heappush(self.heap, (time, kind, self.number, what))

    def pick(self) -> Server:
        if self.case["global_scheduler"] == "lor":
            return min(self.servers, key=lambda server: len(server.queue))
        if self.case["global_scheduler"] == "random":
            return self.servers[self.dice.randint(1, len(self.servers)) - 1]
        self.turn += 1
        return self.servers[(self.turn - 1) % len(self.servers)]

    def run(self) -> Reference:
        while self.heap:
            now, kind, _, what = heappop(self.heap)
            if kind == ARRIVE:
                together = [what]
                while self.heap and self.heap[0][:2] == (now, ARRIVE):
                    together.append(heappop(self.heap)[3])
                chosen = []
                for job in together:
                    server = self.pick()
                    server.queue.append(job)
                    chosen.append(server)
                for server in self.servers:
                    if server in chosen:
                        self.schedule(server, now)
            else:
                self.stage_end(now, *what)
        return self

    def schedule(self, server: Server, now: float) -> None:
        while server.flying < server.stages:
            batch = server.batch()
            if not batch:
                return
            server.flying += 1
            for job, _ in batch:
                if not job.running:
                    job.running = True
                    job.scheduled = now if job.scheduled < 0 else job.scheduled
            server.lines[0].append(batch)
            self.feed(server, 0, now)

    def feed(self, server: Server, stage: int, now: float) -> None:
        if server.lines[stage] and not server.busy[stage]:
            server.busy[stage] = True
            batch = server.lines[stage].pop(0)
            self.push(now + seconds(batch), STAGE_END, (server, stage, batch))

    def stage_end(self, now: float, server: Server, stage: int, batch: list[tuple[Job, int]]) -> None:
        server.busy[stage] = False
        self.feed(server, stage, now)
        if stage + 1 < server.stages:
            server.lines[stage + 1].append(batch)
            self.feed(server, stage + 1, now)
            return
        server.flying -= 1
        self.iterations += 1
        for job, tokens in batch:
            job.done += tokens
            if job.done == job.prefill:
                job.done += 1
                job.first = now if job.first < 0 else job.first
            if job.completed:
                job.end = now
                del server.blocks[id(job)]
            else:
                server.ran.append(job)
        self.schedule(server, now)


def seconds(batch: list[tuple[Job, int]]) -> float:
    """The closed form of the exact cases."""
    tokens = sum(n for _, n in batch)
    context = sum(job.done for job, _ in batch if job.decoding)
    pairs = sum(n * (job.done + n / 2) for job, n in batch if not job.decoding)
    work = max(CONSTANTS["w"], CONSTANTS["c"] * tokens)
    return CONSTANTS["t0"] + work + CONSTANTS["kv"] * context + CONSTANTS["pa"] * pairs


def write_cases(folder: Path, cases: list[dict[str, Any]], rows: list[tuple[float, int, int]]) -> None:
    """A folder in the format of the exact cases, with the answers of this simulation."""
    with (folder / "trace.csv").open("w", newline="") as text:
        csv.writer(text).writerows([("arrived_at", "num_prefill_tokens", "num_decode_tokens"), *rows])
    listed = []
    for case in cases:
        factor = case.get("time_scale_factor", 1.0)
        system = Reference(case, [(t * factor, p, o) for t, p, o in rows]).run()
        with (folder / f"{case['name']}.csv").open("w", newline="") as text:
            writer = csv.writer(text)
            writer.writerow(("request", "ttft_s", "e2e_s", "scheduling_delay_s", "restarts"))
            for index, job in enumerate(system.jobs):
                start = job.arrival
                times = (job.first - start, job.end - start, job.scheduled - start)
                writer.writerow((index, *map(repr, times), job.restarts))
        restarts = sum(job.restarts for job in system.jobs)
        listed.append(
            {**case, "per_request": f"{case['name']}.csv", "trace": "trace.csv", "restarts": restarts,
             "iterations": system.iterations}
        )  # fmt: skip
    document = {"constants": CONSTANTS, "cases": listed}
    (folder / "cases.json").write_text(json.dumps(document))
