"""Probes: functions that try a library by using it, each in a process of its own.

``python -m unigrf_dist.doctor.probes NAME`` prints the finding as its last line of output, or fails. The process
is separate because a library of the wrong build does not raise an exception, it kills its process.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable


def devices() -> str:
    """The GPUs that torch can use; empty if there are none."""
    import torch

    if not torch.cuda.is_available():
        return ""
    names = []
    for index in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(index)
        names.append(f"{card.name} {card.total_memory / 2**30:.0f} GiB sm_{card.major}{card.minor}")
    return ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names))


def gloo() -> str:
    """An all-reduce of one rank over the network interface that gloo chooses."""
    return _all_reduce("gloo", "cpu")


def nccl() -> str:
    """An all-reduce of one rank on the first GPU."""
    return _all_reduce("nccl", "cuda")


def deepspeed() -> str:
    """DeepSpeed's own collectives; the first time this compiles an operator, which takes a minute or more."""
    import torch

    on_cuda = torch.cuda.is_available()
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if on_cuda else "cpu")
    import deepspeed as library

    from unigrf_dist.ranks.operator_build import build_cpu_operator

    backend = "nccl" if on_cuda else "gloo"
    if not on_cuda:
        build_cpu_operator(_say)
    _start_group(backend)
    library.init_distributed(dist_backend=backend, auto_mpi_discovery=False, verbose=False)
    total = torch.ones(2, device="cuda" if on_cuda else "cpu")
    library.comm.all_reduce(total)
    name = library.accelerator.get_accelerator().device_name()
    return f"accelerator {name}, all-reduce over {backend} works"


def fbgemm() -> str:
    """An FBGEMM operator and the import of TorchRec, which registers the others."""
    import torch
    import torchrec  # noqa: F401 - imported for the operators it loads

    offsets = torch.ops.fbgemm.asynchronous_complete_cumsum(torch.tensor([2, 0, 3]))
    if offsets.tolist() != [0, 2, 2, 5]:
        raise RuntimeError(f"offsets of lengths 2, 0, 3 came out as {offsets.tolist()}")
    return "operators load and compute"


def triton() -> str:
    """A kernel that adds one: compiled on a GPU, interpreted elsewhere."""
    import torch

    on_cuda = torch.cuda.is_available()
    if not on_cuda:
        os.environ["TRITON_INTERPRET"] = "1"
    from unigrf_dist.doctor.triton_kernel import add_one

    values = torch.zeros(5, device="cuda" if on_cuda else "cpu")
    add_one[(1,)](values, 5)
    if values.tolist() != [1.0] * 5:
        raise RuntimeError(f"adding one to zeros gave {values.tolist()}")
    return "compiles and runs kernels" if on_cuda else "interpreter only; kernels have a PyTorch path on the CPU"


def _say(text: str) -> None:
    """Tell what this process waits for; whoever gives it up quotes its last line."""
    print(text, flush=True)


def _start_group(backend: str) -> None:
    import torch.distributed as dist

    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)


def _all_reduce(backend: str, device: str) -> str:
    import torch
    import torch.distributed as dist

    _start_group(backend)
    total = torch.ones(2, device=device)
    dist.all_reduce(total)
    if total.tolist() != [1.0, 1.0]:
        raise RuntimeError(f"the sum over one rank of [1, 1] came out as {total.tolist()}")
    return "all-reduce of one rank works"


PROBES: dict[str, Callable[[], str]] = {
    probe.__name__: probe for probe in (devices, gloo, nccl, deepspeed, fbgemm, triton)
}


def main() -> None:
    line = PROBES[sys.argv[1]]()
    print(f"\n{line}", flush=True)
    # Skips the interpreter's shutdown, during which a gloo thread may abort the process.
    os._exit(0)


if __name__ == "__main__":
    main()
