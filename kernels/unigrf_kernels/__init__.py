"""Triton and CPU kernels of unigrf_dist: jagged attention, joint loss, fused layer pieces."""
