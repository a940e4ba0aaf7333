"""One thing that was looked at, and what was found."""

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
    """A finding. ``mend`` is a command to type, or a setting to change, and empty where nothing is amiss."""

    group: str
    name: str
    status: Status
    found: str
    mend: str = ""


def ok(group: str, name: str, found: str) -> Check:
    return Check(group, name, Status.OK, found)


def note(group: str, name: str, found: str, mend: str) -> Check:
    return Check(group, name, Status.NOTE, found, mend)


def fail(group: str, name: str, found: str, mend: str) -> Check:
    return Check(group, name, Status.FAIL, found, mend)
