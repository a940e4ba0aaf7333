"""Compile one case for one chip and check what it uses."""

from __future__ import annotations

import contextlib
import io
import time
from dataclasses import dataclass
from typing import Any

from .assembly import Usage, count_in_loops, read_amdgcn, read_cubin
from .case import CompileCase
from .targets import Target


@dataclass(frozen=True)
class CompileReport:
    """What one configuration costs on one chip.

    Attributes:
        label: label of the case.
        arch: name of the target.
        num_warps: warps per program.
        num_stages: depth of the software pipeline.
        registers: 32-bit registers of one thread.
        local_bytes: bytes of one thread's local memory: spilled registers and stack.
        shared_bytes: shared memory of one block.
        shared_limit: what the chip allows a block.
        matrix_instructions: matrix instructions of the kind meant, inside loops.
        seconds: time that compiling took.
        faults: why this configuration must not ship; empty if it may.
        notes: remarks of the assembler worth reading.
    """

    label: str
    arch: str
    num_warps: int
    num_stages: int
    registers: int
    local_bytes: int
    shared_bytes: int
    shared_limit: int
    matrix_instructions: int
    seconds: float
    faults: tuple[str, ...]
    notes: tuple[str, ...]


def compile_for(case: CompileCase, target: Target) -> CompileReport:
    """Compile without a GPU. A compiler that fails is a fault of the configuration, not an exception."""
    begin = time.perf_counter()
    log = io.StringIO()
    try:
        with contextlib.redirect_stdout(log):
            kernel = _compile(case, target)
    except Exception as error:
        return CompileReport(
            label=case.label,
            arch=target.name,
            num_warps=case.num_warps,
            num_stages=case.num_stages,
            registers=0,
            local_bytes=0,
            shared_bytes=0,
            shared_limit=target.shared_limit,
            matrix_instructions=0,
            seconds=time.perf_counter() - begin,
            faults=(f"does not compile: {type(error).__name__}: {str(error).strip().splitlines()[0][:200]}",),
            notes=(),
        )
    seconds = time.perf_counter() - begin
    usage = read_cubin(kernel.asm["cubin"]) if target.backend == "cuda" else read_amdgcn(kernel.asm["amdgcn"])
    return CompileReport(
        label=case.label,
        arch=target.name,
        num_warps=case.num_warps,
        num_stages=case.num_stages,
        registers=usage.registers,
        local_bytes=usage.local_bytes,
        shared_bytes=kernel.metadata.shared,
        shared_limit=target.shared_limit,
        matrix_instructions=count_in_loops(usage.assembly, target.matrix_instruction),
        seconds=seconds,
        faults=tuple(find_faults(case, target, usage, kernel.metadata.shared)),
        notes=tuple(sorted({line.strip() for line in log.getvalue().splitlines() if "Performance" in line})),
    )


def find_faults(case: CompileCase, target: Target, usage: Usage, shared_bytes: int) -> list[str]:
    """Reasons why the configuration must not ship on this chip."""
    faults = []
    if usage.local_bytes:
        faults.append(f"{usage.local_bytes} bytes of local memory per thread")
    if shared_bytes > target.shared_limit:
        faults.append(f"{shared_bytes} bytes of shared memory, {target.shared_limit} allowed")
    if case.expects_tensor_cores:
        if not count_in_loops(usage.assembly, target.matrix_instruction):
            faults.append("no matrix instruction in a loop")
        other = target.other_matrix_instruction
        if other and count_in_loops(usage.assembly, other):
            faults.append("slower matrix instructions in a loop")
    return faults


def _compile(case: CompileCase, target: Target) -> Any:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = case.kernel.arg_names
    signature = {name: case.signature.get(name, "constexpr") for name in names}
    attributes = {(names.index(name),): [["tt.divisibility", 16]] for name in case.divisible_by_16}
    source = ASTSource(case.kernel, signature, dict(case.constexprs), attributes)
    options = {"num_warps": case.num_warps, "num_stages": case.num_stages}
    return triton.compile(source, target=GPUTarget(target.backend, target.arch, target.warp_size), options=options)
