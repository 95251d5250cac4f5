"""Documents that people write: YAML 1.2 (core schema), of which JSON is a part, within limits.

PyYAML finds the parts of a document; what they stand for is decided here. Its own loaders follow
YAML 1.1, where `1e-4` is text, `off` is false and `2024-01-01` a date, and know no limits.
"""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from cl_platform.errors import BadInput, one_line

CHARACTERS = 1_000_000  # the longest document
NODES = 300_000  # values in a document, what aliases stand for counted again
DEPTH = 50  # of lists and mappings inside each other
INTEGER = 2**63  # what other programs can read of a record, as well

NULL = re.compile(r"~|null|Null|NULL|")
BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
FLOAT = re.compile(
    r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)
TAG = "tag:yaml.org,2002:"


def parse(text: str) -> Any:
    """Return the value of a YAML or JSON document: dicts, lists, text, numbers, booleans, None.

    Keys are text as written; the key `<<` takes in the mappings that it is given.

    Raises:
        BadInput: it is malformed, ambiguous (a key twice) or beyond the limits.
    """
    if len(text) > CHARACTERS:
        raise BadInput(f"it is longer than {CHARACTERS:,} characters")
    try:
        return _Reader(text).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = ", ".join(filter(None, (error.context, error.problem, error.note)))
        raise BadInput(one_line(BadInput(f"{what}{_at(mark)}"))) from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # the latter: impossible escapes
        raise BadInput(one_line(error)) from error


def read(path: str | Path) -> Any:
    """Return the value of a file; see :func:`parse`. It may begin with a byte-order mark.

    Raises:
        BadInput: as for :func:`parse`, or the file cannot be read or is no UTF-8.
    """
    try:
        with Path(os.path.expanduser(path)).open("rb") as file:
            content = file.read(4 * CHARACTERS + 4)  # a device may have no end
        utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        return parse(content.decode("utf-16" if utf16 else "utf-8-sig"))
    except (OSError, ValueError) as error:  # ValueError: the coding, or a NUL in the path
        raise BadInput(one_line(error)) from error


def dump(value: Any) -> str:
    """Return YAML in block style that :func:`parse` reads as the same value."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False)


def dump_line(value: Any) -> str:
    """Return YAML in one line that :func:`parse` reads as the same value."""
    text = yaml.dump(value, Dumper=_Dumper, default_flow_style=True, width=10**6)
    return text.removesuffix("...\n").rstrip("\n")


class _Reader:
    """Makes the value of one document from PyYAML's events."""

    def __init__(self, text: str) -> None:
        self.events: Iterator[Any] = iter(yaml.parse(text, Loader=yaml.SafeLoader))
        self.anchors: dict[str, tuple[int, Any] | None] = {}  # None while it is being made
        self.nodes = 0

    def document(self) -> Any:
        events = self.events
        next(events)  # the stream's start
        if isinstance(next(events), yaml.StreamEndEvent):
            return None
        value = self._value(next(events), 0)
        next(events)  # the document's end
        event = next(events)
        if not isinstance(event, yaml.StreamEndEvent):
            raise _fault("it holds more than one document", event)
        return value

    def _value(self, event: Any, depth: int) -> Any:
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        self._count(1, event)
        if depth > DEPTH:
            raise _fault(f"it is nested more than {DEPTH} deep", event)
        before = self.nodes
        if event.anchor is not None:
            self.anchors[event.anchor] = None
        if isinstance(event, yaml.ScalarEvent):
            value = _scalar(event)
        elif isinstance(event, yaml.SequenceStartEvent):
            _check_tag(event, "seq")
            value = [self._value(item, depth + 1) for item in self._until(yaml.SequenceEndEvent)]
        else:
            _check_tag(event, "map")
            value = self._mapping(depth + 1)
        if event.anchor is not None:
            self.anchors[event.anchor] = (1 + self.nodes - before, value)
        return value

    def _mapping(self, depth: int) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for event in self._until(yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent) or event.tag not in (None, "!", f"{TAG}str"):
                raise _fault("a key must be text", event)
            key = _text(event)
            if event.anchor is not None:
                self.anchors[event.anchor] = (1, key)
            value = self._value(next(self.events), depth)
            if key == "<<" and event.implicit[0]:
                for part in reversed(value if isinstance(value, list) else [value]):
                    if not isinstance(part, dict):
                        raise _fault("<< takes a mapping or a list of them", event)
                    merged |= part
            elif key in own:
                raise _fault(f"key {key!r} is there twice; drop one", event)
            else:
                own[key] = value
        return merged | own

    def _alias(self, event: Any) -> Any:
        """Return a copy: a setting that is changed later is changed in one place only."""
        if event.anchor not in self.anchors:
            raise _fault(f"no anchor &{event.anchor} before *{event.anchor}", event)
        found = self.anchors[event.anchor]
        if found is None:
            raise _fault(f"*{event.anchor} stands inside itself", event)
        self._count(found[0], event)
        return _copy(found[1])

    def _count(self, nodes: int, event: Any) -> None:
        self.nodes += nodes
        if self.nodes > NODES:
            raise _fault(f"it holds more than {NODES:,} values", event)

    def _until(self, end: type) -> Iterator[Any]:
        while not isinstance(event := next(self.events), end):
            yield event


def _scalar(event: Any) -> Any:
    """Return the value of a scalar by its tag, or if it has none by its form."""
    text = _text(event)
    if event.tag in (None, "!"):
        return _plain(text, event) if event.implicit[0] else text
    kind = event.tag.removeprefix(TAG)
    if kind == "str":
        return text
    value = _plain(text, event)
    if kind == "float" and type(value) is int:
        return float(value)
    if kind not in ("null", "bool", "int", "float"):
        raise _tag_fault(event)
    if type(value).__name__.replace("NoneType", "null") != kind:
        raise _fault(f"{text[:40]!r} is no {kind}", event)
    return value


def _plain(text: str, event: Any) -> Any:
    if NULL.fullmatch(text):
        return None
    if BOOL.fullmatch(text):
        return text.lower() == "true"
    if INT.fullmatch(text):
        base = {"0o": 8, "0x": 16}.get(text[:2], 10)
        value = int(text, base) if len(text) < 80 else INTEGER
        if not -INTEGER <= value < INTEGER:
            raise _fault(f"integer {text[:24]}... is beyond 64 bits; write it as 1.0e+20", event)
        return value
    if FLOAT.fullmatch(text):
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text


def _text(event: Any) -> str:
    """Return the text of a scalar; JSON writes characters beyond 16 bits as two escapes."""
    value: str = event.value
    try:
        return value.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        raise _fault("half of an escaped pair stands alone", event) from None


def _check_tag(event: Any, kind: str) -> None:
    if event.tag not in (None, "!", f"{TAG}{kind}"):
        raise _tag_fault(event)


def _tag_fault(event: Any) -> BadInput:
    return _fault(f"tag {event.tag.replace(TAG, '!!')[:60]} is not allowed", event)


def _fault(what: str, event: Any) -> BadInput:
    return BadInput(f"{what}{_at(event.start_mark)}")


def _at(mark: Any) -> str:
    return f" (line {mark.line + 1}, column {mark.column + 1})" if mark is not None else ""


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


class _Dumper(yaml.SafeDumper):
    """Quotes text that readers of either version of YAML would take for something else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_implicit_resolver(f"{TAG}int", INT, list("-+0123456789"))
_Dumper.add_implicit_resolver(f"{TAG}float", FLOAT, list("-+.0123456789"))
