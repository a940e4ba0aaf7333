"""One generative recommender for retrieval and ranking, trained at scale (UniGRF, arXiv 2504.16454)."""
