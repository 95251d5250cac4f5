"""Sinks receive the events of a run; none can stop, slow or change it.

Events are dictionaries with a key ``event``:

=============  ====================================================================================
``start``      ``run_id``, ``config``, ``order``, ``experiences``, ``scenario``, ``command``,
               ``labels`` (the index in the run of each class of the stream as given)
``progress``   ``step`` (of the fold), ``done``, ``total`` (batches), ``loss`` (their mean since the
               last one); of each batch since then ``losses``, ``rates``, ``norms``; ``batches`` and
               ``sizes`` of the epochs, ``batch_size``; ``steps`` and ``samples`` ``before``
``within``     ``step``, ``done``, ``before``, ``accuracy`` (by column), in the midst of training
``evaluated``  ``step``, ``rows`` (accuracy by split, mask and experience identity), ``reused``,
               ``predictions`` (their address in the store of states, or None), ``measured`` (by
               name; None for what the network does not have) where asked for, ``probes`` (accuracy
               by experience identity) likewise
``diagnosed``  ``step``, ``values`` (numbers or lists of them, by name) of the strategy's own
``remembered`` ``step``, ``by_class`` (samples that replay memories hold)
``saved``      ``step``, ``key`` of the state, and of the one that it was ``made_from``
``end``        ``result`` (as in result.json)
``failed``     ``error``
=============  ====================================================================================
"""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from cl_platform.core.json_text import json_text
from cl_platform.core.matrix import Accuracies
from cl_platform.errors import one_line
from cl_platform.storage.files import append, is_remote, read_bytes, write_atomic

Event = dict[str, Any]
UNLOGGED = ("progress", "within", "saved", "remembered")  # what the log has no use for


class Sink(Protocol):
    """A receiver of the events of a run."""

    def emit(self, event: Event) -> None: ...

    def close(self) -> None: ...


class Trackers:
    """Passes events on to several sinks; drops one that raises, with a single line."""

    def __init__(self, sinks: Sequence[Sink] = ()) -> None:
        self.sinks = list(sinks)

    def emit(self, event: str, **content: Any) -> None:
        self._each(lambda sink: sink.emit({"event": event, **content}))

    def close(self) -> None:
        self._each(lambda sink: sink.close())

    def _each(self, call: Callable[[Sink], None]) -> None:
        for sink in list(self.sinks):
            try:
                call(sink)
            except Exception as error:
                self.sinks.remove(sink)
                name = getattr(sink, "name", type(sink).__name__)
                print(f"{name} stopped: {one_line(error)}", file=sys.stderr)


class EventLog:
    """Appends every event but what comes from the midst of training to a JSONL file, one line each.

    At an address, where nothing can be appended, the file is small enough to be written anew. It
    has accuracies as lists in the order of the experiences of ``start``: their identities, 64
    digits each, would be most of it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            content = read_bytes(path)
        except FileNotFoundError:
            content = b""
        torn = content and not content.endswith(b"\n")
        self._before = "\n" if torn else ""  # the writer of the last line was killed
        self._content = content if is_remote(path) else b""
        self._identities: list[str] = []

    def emit(self, event: Event) -> None:
        if event["event"] in UNLOGGED:
            return
        if event["event"] == "start":
            self._identities = [e["identity"] for e in event.get("experiences", ())]
        elif event["event"] == "evaluated":
            event = {**event, "rows": self._listed(event["rows"])}
        line = f"{self._before}{json_text({'time': time.time(), **event})}\n"
        if is_remote(self.path):
            self._content += line.encode()
            write_atomic(self.path, self._content)
        else:
            append(self.path, line)
        self._before = ""

    def _listed(self, rows: Mapping[str, Accuracies]) -> dict[str, dict[str, list[float]]]:
        return {
            split: {mask: [row[i] for i in self._identities] for mask, row in by_mask.items()}
            for split, by_mask in rows.items()
        }

    def close(self) -> None:
        pass


class Background:
    """A sink served by a thread of its own, so that the run never waits for it.

    Args:
        make: builds the sink; called in the thread, since that alone may take long.
        patience: seconds that :meth:`close` waits for what is still to be sent.
        name: of the sink, in lines about it.
    """

    def __init__(
        self, make: Callable[[], Sink], patience: float = 20.0, name: str = "tracking"
    ) -> None:
        self.patience = patience
        self.name = name
        self._make = make
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def emit(self, event: Event) -> None:
        self._events.put(event)

    def close(self) -> None:
        self._events.put(None)
        self._thread.join(self.patience)
        if self._thread.is_alive():
            raise TimeoutError(
                f"not done after {self.patience:g} s; the run's records are complete"
            )

    def _serve(self) -> None:
        trackers: Trackers | None = None
        while (event := self._events.get()) is not None:
            trackers = trackers or self._start()
            trackers.emit(**event)
        if trackers is not None:
            trackers.close()

    def _start(self) -> Trackers:
        try:
            return Trackers([self._make()])
        except Exception as error:
            print(f"{self.name} is off: {one_line(error)}", file=sys.stderr)
            return Trackers()
