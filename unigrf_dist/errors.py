"""The one error that is meant for the person at the keyboard, and text that is safe to show there."""

import unicodedata

# Control, format (such as a change of writing direction) and surrogate characters act on a terminal or break it.
_UNPRINTABLE = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")


def printable(text: str, *, keep: str = "") -> str:
    """``text`` with control characters written as escapes, such as ``\\x1b``; those in ``keep`` stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character) in _UNPRINTABLE and character not in keep
        else character
        for character in text
    )


class UserError(Exception):
    """A mistake that the user can fix: wrong file, key, value or machine.

    The message is one line that says what is wrong, where, what is allowed and how to fix it. The command line
    prints it without a traceback and ends with exit status 2. It may quote files and raw values: what would act on
    a terminal is escaped.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message, keep="\n"))
