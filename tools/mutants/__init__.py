"""A mutation run: small mistakes are written into the code, one at a time, and the tests must notice each.

    make mutants                                            # everything; resumes where it was stopped
    make mutants ARGS='--sample 200 --seed 1'               # a repeatable sample
    make mutants ARGS='--only unigrf_dist/objective/weighter.py'

Why a runner of its own: mutmut leaves decorated functions alone and selects tests by calls that it sees in its own
process, so what only ranks execute would go untested; cosmic-ray starts Python anew for each mutant, and importing
torch, TorchRec and DeepSpeed takes longer than most tests. Here the imports happen once and each mutant is a fork.
"""
