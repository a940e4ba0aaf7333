"""A model of the compiled loops: what bounds a kernel, and the speed predicted from issue rates, without a GPU.

Run as `python -m unigrf_kernels.aot --model`.
"""
