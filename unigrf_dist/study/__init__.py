"""Many runs of one question: ablations and scaling, run, compared and drawn."""
