"""The raw formats that can be prepared. To add one, write a function in this folder and name it in ``registry``.

A format is a function that looks at the path the user named and describes the files there as a ``Source``;
reading, checking and sorting are the same for all.
"""

from unigrf_dist.prepare.formats.registry import FORMATS, MAPPED_FORMATS, describe, describe_all

__all__ = ["FORMATS", "MAPPED_FORMATS", "describe", "describe_all"]
