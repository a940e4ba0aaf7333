"""Checkpoints of a run: what they hold, how they are stored, which are complete.

Nothing is imported here: what only looks at the folder needs neither torch nor DeepSpeed.
"""
