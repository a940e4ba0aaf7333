"""The one error that is meant for the person at the keyboard."""


class UserError(Exception):
    """A mistake that the user can fix: wrong file, key, value or machine.

    The message is one line that says what is wrong, where, what is allowed and how to fix it. The command line
    prints it without a traceback and ends with exit status 2.
    """
