"""An export: one folder with all that answering takes, apart from the run, its data and the training packages.

``write`` makes it from a run's folder, ``read`` loads it; ``bundle`` names its files and holds their hashes,
``weights`` its tensors, ``card`` its README.md.
"""
