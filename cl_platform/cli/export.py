"""``clp export``: the trained model of a run as files that other programs read."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter


def export(
    run: str,
    /,
    *,
    to: Literal["safetensors", "torch", "onnx", "hf"],
    out: str | None = None,
    results: str = "clp-results",
    license_: Annotated[str, Parameter(name=["--license"])] = "unknown",
    after: int | None = None,
    retrain: Annotated[bool, Parameter(negative="")] = False,
    json_: Annotated[bool, Parameter(name=["--json"], negative="")] = False,
) -> None:
    """Write the trained model of a run into a folder, with a card; it needs no cl-platform.

    What was written is read again and compared with the run's matrix, on its test data.

    Parameters
    ----------
    run
        Its id, the first characters of it, or its folder.
    to
        safetensors: weights and a program in Python that reads them; torch: a program for
        torch.export.load; onnx; hf: for from_pretrained of transformers or peft, if it is theirs.
    out
        The folder to make (default: RUN_ID-FORMAT in the working folder).
    results
        Folder of runs, or its address, where an id is looked up.
    license_
        For the card, such as apache-2.0.
    after
        The model after so many experiences (default: all).
    retrain
        Train again what was not kept.
    json_
        Print one JSON document and nothing else.
    """
    from cl_platform.cli.app import print_json
    from cl_platform.deploy.exporting import export as write

    made = write(run, to, out, results=results, license=license_, after=after, retrain=retrain)
    if json_:
        print_json({"path": str(made.path), "check": made.check})
    else:
        print(made.check)
        print(made.path)
