"""From a checkpoint to recommendations: one process, on the CPU, without TorchRec and DeepSpeed.

The way of a request: ``recommender.Recommender`` turns raw ids into histories; ``stages.TwoStages`` reads a
history once, searches the catalogue with its last state, and scores what it found as candidate tokens behind the
kept keys and values; ``lists.blended`` puts both stages' probabilities into one order.
"""

from unigrf_dist.serve.recommender import Entry, Recommendations, Recommender

__all__ = ["Entry", "Recommendations", "Recommender"]
