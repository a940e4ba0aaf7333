"""``python -m unigrf_dist`` is the ``unigrf`` command."""

from unigrf_dist.cli import main

main()
