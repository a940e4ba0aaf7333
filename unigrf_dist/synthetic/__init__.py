"""Synthetic interactions with a planted structure, for which the best possible metrics are known.

**The world.** ``I`` items lie in ``G`` groups of equal size; ``K`` tastes are equally likely. Written
``N(s)`` for an independent normal draw of mean 0 and spread ``s``:

* ``chance(r | g)``: popularity of the item of rank ``r`` in its group, proportional to ``r ** -zipf_exponent``;
* ``visit[k, g] = N(1)`` and ``like[k, g] = 0.6 visit[k, g] + 0.8 N(1)``: a taste mostly likes what it visits;
* ``P(g' | g, k)`` proportional to ``exp(2.0 visit[k, g'] + between[g, g'])``, ``between = N(1.0)``: the next
  group depends on the taste and on the group of the last item (``between`` is 0 for the first event);
* every item has three successors, with chances .6, .3, .1: three permutations of all items;
* ``quality[i] = N(0.4)``.

**A user** has one taste ``k`` all along. The next item is a successor of the last one with chance
``successor_share``, otherwise a group is drawn from ``P(. | g, k)`` and an item from its popularities. If the
user has seen the item before, the whole draw is repeated; so no user sees an item twice, and the next item is
distributed as said, given that it is unseen. The rating is 1 plus the number of thresholds -2.8, -1.6, 0.0, 1.8
that the utility ``1.4 like[k, g] + quality[i]`` plus standard logistic noise exceeds. Lengths are 5 plus a gamma
variable of shape 1.5, cut at 8 times the mean and at a quarter of the items. Events come in sessions of 8 on
average, 90 s apart inside a session, days apart between sessions; times are independent of items and ratings.

**Side features.** The item feature ``group`` is the item's group; the user feature ``taste`` is the user's taste,
known for four users of five.

**The optimum.** An observer who knows the world but not the tastes has, after each event, a posterior of the
user's taste (Bayes' rule over ``K`` tastes, given items and ratings), and hence the chance of every item to be
next and of every rating of a given item. No ranking of the unseen items has a better expected hit rate, NDCG or
reciprocal rank than that by these chances, and no probability a better expected log loss. ``planted.json`` holds
the metrics of this observer on the held-out events of exactly the users that were written:
``{"validation" | "test": {"retrieval": {"hr@1", "hr@10", "hr@50", "hr@200", "ndcg@10", "ndcg@50", "ndcg@200",
"mrr"}, "ranking": {"rating >= 4": {"auc", "log_loss"}}}}``, under the protocol of the evaluation: the whole
catalogue without all seen items; for the test event the validation event belongs to the history. A model with the
user feature ``taste`` knows more than this observer, and may do better.
"""

from unigrf_dist.synthetic.drift import synthesize_days
from unigrf_dist.synthetic.generate import synthesize

__all__ = ["synthesize", "synthesize_days"]
