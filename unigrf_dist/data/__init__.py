"""Prepared data sets: reading them from disk, and the streams of batches for training and evaluation."""

from unigrf_dist.data.batch import JaggedBatch
from unigrf_dist.data.configured import configured_dataset
from unigrf_dist.data.dataset import Dataset, open_dataset
from unigrf_dist.data.evaluation_stream import EvaluationBatch, EvaluationStream
from unigrf_dist.data.stream import TrainStream

__all__ = [
    "Dataset",
    "EvaluationBatch",
    "EvaluationStream",
    "JaggedBatch",
    "TrainStream",
    "configured_dataset",
    "open_dataset",
]
