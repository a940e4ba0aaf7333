"""Microbenchmarks of all operators, beside the usual baselines.

Run as `python -m unigrf_kernels.bench`.
"""
