"""``clp check``: test that a strategy keeps the contract."""

from __future__ import annotations

import re
from typing import Annotated

from cyclopts import Parameter

from cl_platform.cli.app import overridden, print_json


def check(
    strategy: str,
    /,
    *,
    stream: str | None = None,
    model: str | None = None,
    set_: Annotated[list[str] | None, Parameter(name=["--set"], negative="")] = None,
    json_: Annotated[bool, Parameter(name=["--json"], negative="")] = False,
) -> None:
    """Check that a strategy keeps the contract: determinism, resume, purity, learning.

    Parameters
    ----------
    strategy
        A registered name, path/to/file.py:Class or module:Class.
    stream
        What to check it on in place of a small stream with a known answer; how well it learns is
        not checked then.
    model
        The network, such as cnn for a stream of images.
    set_
        A parameter, strategy.key=value or optimizer.lr=value; may be repeated.
    json_
        Print one JSON document and nothing else.
    """
    flags = {"strategy": strategy, "stream": stream, "model": model}
    data = overridden([], flags, set_ or [])

    from cl_platform.engine.contract import check_strategy

    verdicts = check_strategy(data.pop("strategy"), **data)
    if json_:
        found = {name: {"ok": not fault, "fault": fault} for name, fault in verdicts.items()}
        print_json(found)
    else:
        from rich.text import Text

        from cl_platform.tracking.console import new_console

        console, told = new_console(), set()
        for name, fault in verdicts.items():
            verdict = ("FAIL", "red") if fault else ("ok  ", "green")
            console.print(Text.assemble(verdict, f" {name}"))
            if fault:
                cause = re.sub(r"^run \w+ failed at [^:]+: ", "", fault)
                console.print(f"       {'as above' if cause in told else fault}", style="red")
                told.add(cause)
    if any(verdicts.values()):
        raise SystemExit(1)
