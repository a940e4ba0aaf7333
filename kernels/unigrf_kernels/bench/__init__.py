"""Microbenchmarks of all operators, beside what a user would take instead.

Run as `python -m unigrf_kernels.bench`.
"""
