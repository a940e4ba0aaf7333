"""Amazon reviews of 2014, 2018 and 2023 (https://amazon-reviews-2023.github.io and the pages it links to).

=================== ==================================================== ============
file                columns                                              time
=================== ==================================================== ============
2014 ratings csv    user, item, rating, timestamp; no header line        seconds
2018 ratings csv    item, user, rating, timestamp; no header line        seconds
2023 ratings csv    user_id, parent_asin, rating, timestamp under header milliseconds
2014, 2018 reviews  reviewerID, asin, overall, unixReviewTime; jsonl     seconds
2023 reviews        user_id, parent_asin, rating, timestamp; jsonl       milliseconds
=================== ==================================================== ============

The kind of a file is inferred from its first lines. Ids are text.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from unigrf_dist.errors import UserError
from unigrf_dist.prepare.raw_csv import first_lines
from unigrf_dist.prepare.source import Source, find_files

_2023: dict[str, Any] = {
    "user": "user_id",
    "item": "parent_asin",
    "behaviours": {"rating": "rating"},
    "timestamp": "timestamp",
    "time_unit": "ms",
}
_2018: dict[str, Any] = {
    "user": "reviewerID",
    "item": "asin",
    "behaviours": {"rating": "overall"},
    "timestamp": "unixReviewTime",
}
_PLAIN: dict[str, Any] = {
    "user": "user",
    "item": "item",
    "behaviours": {"rating": "rating"},
    "timestamp": "timestamp",
}
# Enough to tell user ids from item ids where a few users are anonymous.
_SNIFFED_LINES = 1000


def reviews(raw: Path) -> Source:
    """Ratings or reviews of one or more categories; all files of a folder must be of one kind.

    Raises:
        UserError: there are no such files, or the first one is none of the kinds above.
    """
    files = find_files(raw, "*.csv", "*.csv.gz", "*.jsonl", "*.jsonl.gz", "*.json", "*.json.gz")
    lines = [line.strip() for line in first_lines(files[0], _SNIFFED_LINES)]
    if files[0].name.removesuffix(".gz").endswith(".csv"):
        meaning = _csv_meaning(files[0], lines)
    else:
        meaning = {"layout": "jsonl", **_jsonl_meaning(files[0], lines)}
    return Source(files=files, user_type="string", item_type="string", limits=(1, 5), **meaning)


def _csv_meaning(file: Path, lines: list[str]) -> dict[str, Any]:
    if "parent_asin" in lines[0].split(","):
        return {"layout": "csv", **_2023}
    # User ids begin with A (a few are anonymous), item ids never do.
    users_first = sum(line.startswith("A") for line in lines)
    items_first = sum(line.partition(",")[2].startswith("A") for line in lines)
    if users_first == items_first:
        raise UserError(
            f"{file}, line 1: {lines[0][:60]!r} begins with no user,item and no item,user of Amazon reviews; "
            "for other files use the format 'csv'"
        )
    order = ("user", "item") if users_first > items_first else ("item", "user")
    return {"layout": "csv", "header": (*order, "rating", "timestamp"), **_PLAIN}


def _jsonl_meaning(file: Path, lines: list[str]) -> dict[str, Any]:
    for line in lines:
        try:
            keys = json.loads(line).keys()
        except (json.JSONDecodeError, AttributeError):
            continue
        for meaning in (_2018, _2023):
            if meaning["user"] in keys:
                return meaning
        raise UserError(
            f"{file}: reviews have neither {_2018['user']!r} nor {_2023['user']!r}, but {', '.join(keys)}"
        )
    raise UserError(f"{file}, line 1: {lines[0][:60]!r} is no JSON object; reviews come as one object a line")
