"""From raw interactions to a prepared data set: sequence Parquet with a manifest."""

from unigrf_dist.prepare.pipeline import prepare

__all__ = ["prepare"]
