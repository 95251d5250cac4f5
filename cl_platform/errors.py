"""The exceptions of the platform, in one tree.

ClpError
├── BadInput            something the user gave; the CLI exits with 2
│   ├── UnknownName     a name that is not registered
│   ├── ConfigError     one or more faults in a configuration, one line each
│   ├── DataError       a data set that is missing, truncated or unreadable
│   └── CurriculumError an order that is no permutation
├── StorageError        a folder or disk that cannot be written or read
├── TrackingError       a tracking server that does not answer, or refuses a request
├── RunFailed           training went wrong (for example a loss that is nan)
└── ContractError       a strategy that does not keep the contract

Each takes a single message of the form "what was given; what is allowed; what to do", so that all
of them can be pickled (and so cross process borders) unchanged.
"""

from __future__ import annotations

import re
import sys
from functools import cache

# Control characters (a terminal obeys them), separators of lines, marks that change the direction
# of the text after them, and lone surrogates, which no file can hold.
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


# Arrays as text, whole or cut off: numbers that nobody reads.
_ARRAY = re.compile(
    r"(?:Parameter containing:\s*)?\b(tensor|array)\((?=[\[\d.-]|nan|inf)[][\d\s.,enaif+-]*"
    r"(?:(?:dtype|device|requires_grad|grad_fn|size)=[^()]*)*\)?"
)
LONGEST, END = 500, 150  # characters of a line, and of its end, where it says what to do


class ClpError(Exception):
    """Root of the platform's errors; what is unprintable in a message becomes escapes, arrays are
    not written out, and a long line loses its middle."""

    exit_code = 1

    def __init__(self, message: object = "") -> None:
        text = _ARRAY.sub(r"\1(...)", str(message))
        super().__init__("\n".join(shortened(printable(line)) for line in text.split("\n")))


class BadInput(ClpError):
    """The user gave something that cannot be used."""

    exit_code = 2


class UnknownName(BadInput):
    """A name that no plugin registered."""


class ConfigError(BadInput):
    """One or more faults in a configuration; the message holds one line per fault."""


class DataError(BadInput):
    """A data set that is missing, truncated or unreadable."""


class CurriculumError(BadInput):
    """An order that is no permutation of what it should order."""


class StorageError(ClpError):
    """A folder that cannot be written or a record that cannot be read."""


class TrackingError(ClpError):
    """A tracking server that does not answer, or refuses a request."""


class RunFailed(ClpError):
    """Training went wrong; the message says where and what to change."""


class ContractError(ClpError):
    """A strategy that does not keep the contract of :class:`cl_platform.Strategy`."""


def shortened(line: str) -> str:
    """Return a line of at most LONGEST characters."""
    if len(line) <= LONGEST:
        return line
    return f"{line[: LONGEST - END - 5]} ... {line[-END:]}"


def one_line(error: BaseException, length: int = LONGEST) -> str:
    """Return the message of an error in one printable line of at most `length` characters.

    An error without a message, or whose message cannot be made, gives the name of its type.
    """
    try:
        text = str(error)
    except Exception:  # it is a user's code as well
        text = ""
    return printable(" ".join(text[: 10 * length].split()))[:length] or type(error).__name__


def printable(text: str) -> str:
    """Return text with the characters that no terminal, page or file should get as escapes."""
    return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text)


@cache
def say_once(line: str) -> None:
    """Print a line that a person should know of on standard error, once in a process."""
    print(line, file=sys.stderr)
