"""``clp verify``: train a run again from its record, and compare."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter


def verify(
    run: str,
    /,
    *,
    results: str = "clp-results",
    json_: Annotated[bool, Parameter(name=["--json"], negative="")] = False,
) -> None:
    """Train a run again from its record and say whether it comes out equal; exit 0 if it does.

    It is trained in a folder that is removed, and nothing that was stored is used. The same bits
    are promised for the same code, data, machine, device and number of threads.

    Parameters
    ----------
    run
        Its id, the first characters of it, or its folder.
    results
        Folder of runs, or its address, where an id is looked up.
    json_
        Print one JSON document and nothing else.
    """
    from cl_platform.cli.app import print_json
    from cl_platform.deploy.verification import verify as train_again

    found = train_again(run, results)
    if json_:
        print_json(found.to_json())
    else:
        print("\n".join(found.lines()))
    if not found.equal:
        raise SystemExit(1)
