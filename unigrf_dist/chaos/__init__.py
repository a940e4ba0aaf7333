"""Faults on purpose: what a run does when ranks, launchers, disks and bytes fail, as a table."""
