"""What a user should see of an error: what is wrong, where, and how to mend it."""

from __future__ import annotations

import re

# Escape sequences of terminals; other controls, and marks that turn the direction of text.
_CONTROLS = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-_])"
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)


class UserError(Exception):
    """The root of everything that a user can mend; the ``contextrl`` command prints it without a traceback.

    Each of its ``problems`` is one paragraph that names the key, option or row, the value found there, and the fix.
    """

    status = 1  # what the command ends with

    def __init__(self, *problems: str) -> None:
        self.problems = list(dict.fromkeys(problems))
        super().__init__(_told(self.problems))

    def __reduce__(self) -> tuple:
        return type(self), tuple(self.problems)


class ConfigError(UserError, ValueError):
    """A configuration or data problem."""

    def __init__(self, *problems: str) -> None:
        super().__init__(*(" ".join(problem.split()) for problem in problems))


class JobRefused(SystemExit):
    """Ends the driver of a job with what is to be mended, not with thirty lines of Hydra around it."""

    def __init__(self, error: Exception) -> None:
        self.problems = error.problems if isinstance(error, UserError) else [" ".join(str(error).split())]
        super().__init__(f"contextrl: {_told(self.problems)}")


def _told(problems: list[str]) -> str:
    """One paragraph as it is; several with numbers, a line each."""
    if len(problems) == 1:
        return problems[0]
    numbered = [f"{number}. {problem}" for number, problem in enumerate(problems, 1)]
    return "\n".join([f"{len(problems)} things to mend:", *numbered])


def printable(text: str) -> str:
    """The text without what a terminal obeys; line breaks and tabs stay."""
    return _CONTROLS.sub("", text)


def told_by(error: BaseException) -> str:
    """What an error of a library says, as far as a paragraph has room for it."""
    return printable(" ".join(str(error).split()))[:300].rstrip(".")
