"""``Check``: one finding of the doctor."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Status(Enum):
    """What a finding means for training."""

    OK = "ok"
    NOTE = "note"  # training runs, but less well than it could
    FAIL = "missing"  # training can't run


@dataclass(frozen=True)
class Check:
    """A finding.

    Attributes:
        group: heading under which it is shown.
        name: what was checked.
        status: what the finding means for training.
        found: the finding, such as a version or an error.
        fix: command to type or setting to change; empty if nothing is wrong.
    """

    group: str
    name: str
    status: Status
    found: str
    fix: str = ""


def ok(group: str, name: str, found: str) -> Check:
    """A finding with which nothing is wrong."""
    return Check(group, name, Status.OK, found)


def note(group: str, name: str, found: str, fix: str) -> Check:
    """A finding with which training runs, but less well than it could."""
    return Check(group, name, Status.NOTE, found, fix)


def fail(group: str, name: str, found: str, fix: str) -> Check:
    """A finding with which training cannot run."""
    return Check(group, name, Status.FAIL, found, fix)
