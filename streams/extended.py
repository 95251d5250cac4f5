"""Streams made of other streams: one that goes on with data that came later, and one that is scored
on data sets that it never learns."""

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


def with_held_out(
    *, inner: dict[str, Any] | str, held_out: Sequence[dict[str, Any] | str]
) -> Stream:
    """Score a stream on the experiences of other streams in every row, without learning them.

    Classes are told by their names: those of equal names are the same class, and new ones get
    outputs that nothing teaches, for probes to read out; see
    :meth:`cl_platform.Stream.also_scored_on`.

    Args:
        inner: the stream that is learned, by name or as a section.
        held_out: the streams that are scored besides, likewise; a column for each experience.

    Raises:
        ConfigError: a stream is unknown, or a parameter wrong.
        BadInput: inputs have another shape, type or unit than those of the inner stream.
    """
    stream: Stream = build("stream", as_section(inner))
    for section in held_out:
        stream = stream.also_scored_on(build("stream", as_section(section)))
    return stream
