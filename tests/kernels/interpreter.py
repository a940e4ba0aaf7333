"""Triton's interpreter, without its needless work."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any


def patch_language_once() -> None:
    """Let a launch replace the builtins of ``triton.language`` once, and not at every call of a device function.

    The interpreter looks through all of the language at each of these calls, and finds it replaced already: nearly
    half of what an interpreted kernel costs.
    """
    from triton import language
    from triton.runtime import interpreter

    patch = interpreter._patch_lang
    if patch.__module__ == __name__:
        return
    replaced: set[str] = set()

    def patch_once(function: Callable[..., Any]) -> Any:
        modules = {value.__name__ for value in function.__globals__.values() if inspect.ismodule(value)}
        modules &= {language.__name__, language.core.__name__}
        if modules and modules <= replaced:
            return None  # a device function's: nobody restores it
        scope = patch(function)
        if not replaced:
            restore = scope.restore
            scope.restore = lambda: (restore(), replaced.clear())
        replaced.update(modules)
        return scope

    interpreter._patch_lang = patch_once
