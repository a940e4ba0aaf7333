"""Opponents without a trained model that are hard to beat: neighbours, EASE, and a regression on mean labels."""
