"""``clp update``: a run goes on with new data, and is judged against thresholds."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from cl_platform.cli.app import interrupted, print_json


def update(
    run: str,
    /,
    *,
    data: str,
    require: Annotated[list[str] | None, Parameter(negative="")] = None,
    set_: Annotated[list[str] | None, Parameter(name=["--set"], negative="")] = None,
    out: str = "clp-results",
    keep_states: Literal["all", "last"] = "all",
    json_: Annotated[bool, Parameter(name=["--json"], negative="")] = False,
) -> None:
    """Let a run on an open stream go on with new data, and compare before and after.

    The run must have been made with --set stream.open=true. It stays as it is; the updated one is
    a run of its own, with a page that says go or no-go. Exit code 3 if a requirement fails.

    Parameters
    ----------
    run
        Its id, the first characters of it, or its folder.
    data
        The new data: the name of a stream, or the path of a folder, table or file of arrays.
    require
        A threshold such as old_accuracy>=0.9 or negative_flips<=1%; may be repeated.
    set_
        A parameter of the new data, data.key=value; may be repeated.
    out
        The folder of the run, if its id is given.
    keep_states
        Which trained states to keep.
    json_
        Print the outcome as one JSON document and nothing else.
    """
    from cl_platform.config.run_config import apply_settings
    from cl_platform.deploy.update import recognised, update as go_on
    from cl_platform.errors import BadInput
    from cl_platform.tracking.console import ConsoleSink
    from cl_platform.tracking.update import print_update

    settings = apply_settings({"data": recognised(data)}, set_ or [])
    if strange := sorted(settings.keys() - {"data"}):
        raise BadInput(f"--set {strange[0]}: only parameters of the new data, --set data.key=value")
    console = ConsoleSink()
    try:
        outcome = go_on(
            run,
            settings["data"],
            require=require or [],
            out=out,
            sinks=[] if json_ else [console],
            keep=keep_states,
        )
    except KeyboardInterrupt:
        console.close()
        raise interrupted("the run before is untouched, what was trained is kept") from None
    if json_:
        print_json(outcome.to_json())
    else:
        print_update(outcome, console.console)
        assert outcome.after.path is not None
        page = outcome.after.path / "update.html"
        console.console.print(f"{outcome.verdict}: {page}", style="dim", soft_wrap=True)
    if outcome.failed:
        raise SystemExit(3)
