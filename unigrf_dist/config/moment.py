"""Moments in a configuration: seconds, or a date and time in UTC."""

from __future__ import annotations

import datetime


def parse_moment(value: object) -> int:
    """Seconds since 1970.

    Args:
        value: whole seconds, or a date with or without a time, as text or as YAML reads it; without a zone in UTC.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    try:
        moment = datetime.datetime.fromisoformat(str(value))
    except ValueError:
        raise ValueError(f"{value!r} is no moment; give seconds, 2024-01-31 or '2024-01-31 12:00:00'") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.timezone.utc)
    if moment.microsecond:
        raise ValueError(f"{value!r}: events are kept in whole seconds; leave the fraction out")
    return int(moment.timestamp())
