"""Entry point of ``deepspeed --module unigrf_dist.train``; see ``unigrf_dist.programs.train``."""

from unigrf_dist.programs.train import main

main()
