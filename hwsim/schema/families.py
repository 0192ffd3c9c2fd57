"""Sections that only one device family reads (``Device.extra``); each is a strict model of its own.

To add a family: write its section model here, list it in `Families`, and write its file in `hwsim.cost`.
A section holds device facts and the build options that its mapper may change (grid sides, schemes, block sizes);
``--set SECTION.FIELD=VALUE`` changes one for a what-if, checked by the same model.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import Field, TypeAdapter, ValidationError

from hwsim.errors import InputError, unknown_name
from hwsim.schema.base import Bandwidth, Bytes, Count, FlopRate, Fraction01, Frequency, PowerW, Strict, Time, UsdPerS

Ratio = Annotated[float, Field(ge=0, le=1000, strict=False)]
NoCount = Annotated[int, Field(ge=0, le=10**9)]
Share = Annotated[float, Field(ge=0, le=1, strict=False)]


class NativeSection(Strict):
    """Formats that a scenario takes where it names none, on devices without a 16-bit matrix path."""

    weights: str
    activations: str
    kv_cache: str


class FpgaSection(Strict):
    """An instruction-driven overlay of `engines` cores, one a die region, each with DSP chains and its channels."""

    engines: Count
    clock: Frequency
    mm_macs: Count  # multiply-accumulates a cycle of one core on matrix-matrix work
    mv_macs: Count  # and on matrix-vector work
    macs_per_dsp: Count  # packed int8 products of one DSP slice
    sync: Fraction01  # share of the cycles left after start, wait and release of instructions
    mm_rows: Count = 128  # output tile of the matrix-matrix mode
    mm_cols: Count = 16
    mv_cols: Count = 512  # outputs that one matrix-vector instruction starts with
    mv_depth: Count = 128  # inputs that one matrix-vector instruction covers
    misc_lanes: Count = 16  # elements a cycle of norms, softmax and elementwise work
    channels: Count = 1  # of the main memory
    weight_channels: Count = 1  # of them, those that feed one core
    channel_efficiency: Fraction01 = 0.7
    cross_efficiency: Fraction01 = 0.35  # of a channel read from another region
    weight_bits: list[Count] = [3, 4, 5, 6, 8]
    ternary: bool = False  # add and subtract in place of multiply: no DSP is used
    group: NoCount = 16  # M of the N:M pattern; 0: dense chains only
    qk_density: Fraction01 = 1.0  # kept share of the query and key projections
    density: Fraction01 = 1.0  # kept share of every other projection
    index_bits: Ratio = 4  # of one kept weight
    chain: Literal["sparse", "fixed"] = "sparse"
    on_chip_decode: bool = True
    head_all_tokens: bool = False  # the output head runs for every prompt token
    quantized_head: bool = True
    kv_bits: NoCount = 0  # of one cached element as loaded; 0: as the scenario's format says
    instruction_bytes: Count = 16
    length_step: Count = 16  # tokens of context that share one decode program (length-adaptive compilation)
    power_run: PowerW = 0.0


class MeshSection(Strict):
    """A 2-D mesh of cores with private memory. Latencies are in clock cycles."""

    cores: Count
    sram_per_core: Bytes
    reserved_per_core: Bytes  # code, stacks and buffers
    routes: Count
    hop: Ratio  # cycles of a hop
    stage: Ratio  # cycles of a routing stage (a reduction's add and forward)
    relay: Ratio  # cycles of a stage done by the router alone
    mac: Ratio  # cycles of one multiply-accumulate of a matrix-vector tile
    unpack: Ratio = 0  # cycles to expand one weight narrower than 16 bits; 0: no path for such weights
    tile_mac: Ratio  # cycles of one multiply-accumulate of a matrix-matrix tile
    tile_start: Ratio  # cycles to start one vector instruction of a matrix-matrix tile
    tile_step: Ratio  # cycles of one shift step
    link_bytes: Ratio = 4  # of one link a cycle and direction
    prefill_grid: NoCount = 0  # side of the square of cores; 0: chosen by the mapper
    decode_grid: NoCount = 0
    tree: Count = 2  # levels of the K-tree
    scheme: Literal["mesh", "cannon", "summa", "pipeline", "ring", "t10", "ladder"] = "mesh"
    t10_stage: Ratio = 18.7
    t10_move: Ratio = 1.6
    ladder_stage: Ratio = 725
    ladder_move: Ratio = 3.4
    kv: Literal["shift", "concat"] = "shift"
    full_heads: bool = True  # keys and values computed at the width of the queries
    layer_scaled: bool = False  # a subset of the layers runs and the time is scaled: no capacity check
    power_run: PowerW = 0.0


class PimSection(Strict):
    """Cache arrays that compute bit-serially along their bitlines, beside a CPU."""

    arrays: Count
    rows: Count
    columns: Count
    clock: Frequency
    share: Fraction01  # of the arrays given to computing
    select_cycles: Ratio = 1
    group: NoCount = 0  # weights a look-up table; 0: chosen by the mapper
    reuse: Share = 1.0  # share of the repeated look-ups that is saved
    activation_bits: Count = 8


class CpuSection(Strict):
    """A CPU that multiplies packed low-bit weights."""

    threads: Count
    macs_per_cycle: Ratio  # of one thread on weights below 8 bit, unpacking included
    macs_per_cycle_8bit: Ratio
    memory_efficiency: Fraction01 = 0.8


class PhoneSection(Strict):
    """A phone: an int8 engine with static shapes, float processors beside it, one shared memory."""

    # npu-products: every product by itself, without prepared shapes; engine: another framework at `engine_rate`
    processor: Literal["npu-int8", "npu-products", "npu-fp16", "cpu-int8", "gpu-fp16", "engine"] = "npu-int8"
    chunk: Count  # prompt tokens of one prepared graph
    prepare_weight: Time  # of one linear weight a prompt: brought into the window of the engine
    layer: Time  # of a layer of a chunk: graph switches and float parts that stay exposed
    chunk_weight: Time  # of one weight of a chunk in the int8 engine
    pruned: Share = 1.0  # share of the layers whose outliers are dropped (1: what is left hides behind the engine)
    outlier_weight: Time = 0.0  # of one weight and token of a layer that keeps its outliers, in float on the CPU
    build_layer: Time = 0.0  # to build the graphs of one layer
    optimize_weight: Time = 0.0  # to optimize the graphs, a linear weight
    group: NoCount = 0  # inputs that share a scale: each group is a product of its own; 0: one scale a tensor
    stream_rows: Count  # up to so many rows a product is bound by its weights
    npu_start: Time
    npu_weight: Time
    npu_fp16_weight: Time
    cpu_start: Time
    cpu_weight: Time
    gpu_start: Time
    gpu_weight: Time
    single_bandwidth: Bandwidth  # of the shared memory for one processor alone
    engine_rate: FlopRate = 1e9  # effective rate of a framework, for `processor: engine`


class FlashSection(Strict):
    """Weights in flash, a part of them in memory."""

    mode: Literal["naive", "hybrid", "window", "all"] = "all"
    sequential: Bandwidth
    read_overhead: Time  # of one random read, over the parallel readers
    read_stream: Bandwidth  # of the rest of a random read
    resident: Fraction01  # share of the weights that memory holds
    sparsity: Share  # of the neurons of a feed-forward layer that a token leaves idle
    fresh: Fraction01  # share of the active neurons that the window does not hold yet
    speculation: Annotated[float, Field(ge=1, le=100, strict=False)] = 1.0  # gain of drafts with all weights in memory
    manage: Ratio  # time to insert and delete neurons, over the time to read them
    sparse_compute: Fraction01  # time of the sparse pass over the dense one
    compute_bytes: Ratio  # bytes of one weight as computed with
    compute_bandwidth: Bandwidth  # at which the processor passes over weights


class OffloadSection(Strict):
    """A GPU that reads its weights from the host, with cache and attention on the CPU."""

    link_peak: Bandwidth
    link: Bandwidth  # measured
    host_memory: Bytes
    host_bandwidth: Bandwidth
    kv_memory: Bytes | None = None  # of the host for caches; none: what the weights leave
    # lens: pages, prompts and tokens share every pass; lightning: the longest request is reserved, prompts go first
    policy: Literal["lens", "lightning"] = "lens"
    longest: Annotated[float, Field(ge=1, le=100, strict=False)] = 1.0  # prompt of a batch over its mean


class CxlSection(Strict):
    """Host memory tiers of a fine-tuning machine: DRAM and CXL cards as the CPU sees them, and the GPU's link."""

    placement: Literal["dram", "cxl", "interleave", "aware"] = "aware"
    cards: Count
    card: Bandwidth  # of one card
    dram: Bandwidth
    link: Bandwidth
    gpus: Count = 1  # that share the cards and the DRAM, each with a copy of the weights and a link of its own
    overlap: Share = 0.0  # share of the optimizer beside the next forward and backward
    state_bytes: Ratio  # that Adam passes over for one parameter
    mfu: Fraction01


class SplitSection(Strict):
    """Memory-rich devices that run the attention of decode behind a network."""

    devices: Count
    memory_size: Bytes
    memory_rate: Bandwidth
    memory_efficiency: Fraction01
    memory_peak: FlopRate | None = None  # 16-bit matrix rate of one memory device; none: attention is bound by memory
    memory_fraction: Fraction01
    network: Bandwidth  # measured, one direction
    round_trip: Time
    slack: Fraction01  # share of a step that transfers may take
    overlap: bool = True  # attention over earlier tokens starts before the new key and value arrive
    price: UsdPerS


SECTIONS: Final[dict[str, type[Strict]]] = {
    "native": NativeSection,
    "fpga": FpgaSection,
    "mesh": MeshSection,
    "pim": PimSection,
    "cpu": CpuSection,
    "phone": PhoneSection,
    "flash": FlashSection,
    "offload": OffloadSection,
    "cxl": CxlSection,
    "split": SplitSection,
}


class Families(Strict):
    """Optional family sections of an accelerator file."""

    native: NativeSection | None = None
    fpga: FpgaSection | None = None
    mesh: MeshSection | None = None
    pim: PimSection | None = None
    cpu: CpuSection | None = None
    phone: PhoneSection | None = None
    flash: FlashSection | None = None
    offload: OffloadSection | None = None
    cxl: CxlSection | None = None
    split: SplitSection | None = None


FAMILY_SECTIONS: tuple[str, ...] = tuple(Families.model_fields)


def changed(section: str, data: dict[str, Any], field: str, value: object) -> dict[str, Any]:
    """A section with one field replaced; strings are read as in a file (``60 MHz``, ``420``, ``true``).

    Raises
    ------
    UnknownNameError: no such field. InputError: a value that the field does not take.
    """
    model = SECTIONS[section]
    if field not in model.model_fields:
        raise unknown_name(f"field of {section}", field, model.model_fields, where=f"{section}.{field}")
    info = model.model_fields[field]
    kind: Any = Annotated[info.annotation, *info.metadata] if info.metadata else info.annotation
    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    for candidate in _readings(value):
        try:
            return {**data, field: adapter.validate_python(candidate)}
        except ValidationError:
            continue
    raise InputError("not a value of this field", where=f"{section}.{field}", seen=repr(value)[:80])


def _readings(value: object) -> list[object]:
    """The ways to read an option string: as it is, as a number, as a truth value."""
    out: list[object] = [value]
    if isinstance(value, str):
        text = value.strip()
        for convert in (int, float):
            try:
                out.append(convert(text))
            except ValueError:
                continue
        if text.lower() in ("true", "false"):
            out.append(text.lower() == "true")
    return out
