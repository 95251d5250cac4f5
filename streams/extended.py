"""A stream that goes on: further experiences, of data that came later."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cl_platform import Stream
from cl_platform.config.signatures import as_section, build


def extended(*, base: dict[str, Any] | str, more: Sequence[dict[str, Any] | str]) -> Stream:
    """Continue a stream with the experiences of other streams, in their order.

    Classes are told by their names; see :meth:`cl_platform.Stream.followed_by`.

    Args:
        base: the stream that is continued, by name or as a section.
        more: the streams whose experiences follow, likewise.

    Raises:
        ConfigError: a stream is unknown, or a parameter wrong.
        BadInput: inputs have another shape or type than those of the first stream.
    """
    stream: Stream = build("stream", as_section(base))
    for section in more:
        stream = stream.followed_by(build("stream", as_section(section)))
    return stream
