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


class ClpError(Exception):
    """Root of the platform's errors."""

    exit_code = 1


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


def one_line(error: BaseException, length: int = 1000) -> str:
    """Return the message of an error in one line of at most `length` characters.

    An error without a message, or whose message cannot be made, gives the name of its type.
    """
    try:
        text = str(error)
    except Exception:  # it is a user's code as well
        text = ""
    return " ".join(text[: 10 * length].split())[:length] or type(error).__name__
