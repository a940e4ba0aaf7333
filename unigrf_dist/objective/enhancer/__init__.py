"""The ranking-driven enhancer (UniGRF, arXiv 2504.16454, section 3.3): ranking teaches retrieval.

A round of the enhancer, in the order in which it happens:

1. ``candidates.select_candidates``: at the end of a round, the state after a user's last event scores the step's
   negatives; the best items that the user has not seen become the user's *candidates*.
2. ``store.CandidateStore`` keeps them on the host until the user comes again.
3. In the next round they ride along as candidate tokens after the user's sequence (``model.tokens``): each attends
   to the whole history and to itself, nothing attends to it.
4. ``targets.select_targets`` compares what ranking and retrieval say of each candidate and selects *enhancer
   targets*: hard negatives of that user, and soft positives of the user's last query.
5. ``objective.pairs`` and ``objective.negative_mask`` bring them into the retrieval loss.

``enhancer.Enhancer`` is what the model's forward calls.
"""
