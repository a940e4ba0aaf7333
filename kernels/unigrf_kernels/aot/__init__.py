"""AOT resource check: compile every shipped kernel configuration without a GPU and report what it costs.

Run as `python -m unigrf_kernels.aot`.
"""

from unigrf_kernels.aot.case import CompileCase, compile_case

__all__ = ["CompileCase", "compile_case"]
