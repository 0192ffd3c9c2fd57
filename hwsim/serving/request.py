"""One request on its way through the simulator; finished ones live on as rows of `hwsim.serving.record`."""

from __future__ import annotations


class Request:
    """Mutable state of a request. Token counts are ints, times seconds.

    Attributes
    ----------
    index: row of the workload and of the result table.
    prompt, output: tokens as given. `total` is their sum.
    prefill: tokens the next prefill must process: the prompt, after a restart also what was generated.
    processed: tokens whose KV entries are known to be done while the request is not decoding.
    finish_at: decode counter of the replica at which the last token comes out.
    offset: prefilled tokens minus the decode counter at which decoding began; blocks: KV blocks held by then.
    kv_ready: its KV cache came from another replica, so no prefill is needed.
    """

    # class attributes: what most requests never change costs nothing to create
    priority = 0
    processed = restarts = finish_at = offset = blocks = cached = 0
    emitted_s = -1.0
    kv_ready = scheduled = False
    prefix: tuple[int, ...] = ()
    model = ""

    def __init__(self, index: int, arrival_s: float, prompt: int, output: int) -> None:
        self.index = index
        self.arrival_s = arrival_s
        self.prompt = self.prefill = prompt
        self.output = output
        self.total = prompt + output

    @property
    def decoding(self) -> bool:
        """Whether the prefill is complete, where `processed` is kept up to date (pipelined replicas)."""
        return self.processed > self.prefill

    def restart(self, processed: int, *, keep_partial: bool) -> None:
        """Lose the KV cache after `processed` tokens; generated tokens become part of the next prefill.

        `keep_partial` reproduces Vidur, where a half-done prefill shrinks to its processed part and the rest of
        the prompt counts as output; otherwise the next prefill is never shorter than the prompt.
        """
        self.prefill = processed if keep_partial else max(processed, self.prefill)
        self.processed = self.cached = 0
        self.kv_ready = self.scheduled = False
        self.restarts += 1

    def __repr__(self) -> str:
        return f"request {self.index} ({self.prompt} + {self.output} tokens, arrived {self.arrival_s:g} s)"
