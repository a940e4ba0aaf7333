"""Other people's recommenders on the same data, split and metric code, each in an environment of its own."""
