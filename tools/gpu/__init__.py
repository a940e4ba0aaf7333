"""``make gpu``: everything that a first session on a GPU should bring home, in under nine minutes."""
