"""The door that ``deepspeed --module unigrf_dist.train`` knocks at; see ``unigrf_dist.programs.train``."""

from unigrf_dist.programs.train import main

main()
