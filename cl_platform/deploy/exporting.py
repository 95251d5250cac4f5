"""From a run to a folder that others read: the model, its card, and proof that it is the same."""

from __future__ import annotations

import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from cl_platform.core.matrix import OWN_MASK
from cl_platform.deploy import huggingface
from cl_platform.deploy.card import card_of, facts_of, json_of
from cl_platform.deploy.formats import FORMATS
from cl_platform.deploy.network import Network
from cl_platform.deploy.program import program_of, quiet
from cl_platform.deploy.scoring import Predict, difference, row_of
from cl_platform.deploy.trained import Trained
from cl_platform.engine.plan import Plan
from cl_platform.errors import BadInput, RunFailed
from cl_platform.results.load import DEFAULT_OUT, load_run
from cl_platform.results.result import Result
from cl_platform.storage.files import cannot

To = Literal["safetensors", "torch", "onnx", "hf"]
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Export:
    """An exported model.

    Args:
        path: its folder.
        check: one line: what was compared with the run, and how much it differs.
    """

    path: Path
    check: str


def export(
    run: Result | str | Path,
    to: To,
    out: str | Path | None = None,
    *,
    results: str | Path = DEFAULT_OUT,
    license: str = "unknown",
    after: int | None = None,
    **options: Any,
) -> Export:
    """Write the trained model of a run into a new folder that needs nothing of this package.

    The folder has a card (``README.md``) and ``config.json``. What was written is read again, and
    must give the logits of the run's own model on the test data, and its row of the matrix.

    Args:
        run: a result, or the id or folder of one; see :func:`cl_platform.load_run`.
        to: ``safetensors`` (with ``model.py``, a program that reads it), ``torch`` (what
            ``torch.export.load`` reads), ``onnx``, or ``hf``, a folder for ``from_pretrained`` of
            transformers or peft, where the model is of these libraries.
        out: the folder, RUN_ID-FORMAT in the working folder by default.
        results: where the id of a run is looked up.
        license: for the card: an identifier such as ``apache-2.0``.
        after: the number of experiences learned, all by default.
        options: of :meth:`cl_platform.Result.model`.

    Raises:
        BadInput: there is no such run or format, the folder exists, or the format cannot hold it.
        StorageError: the state of the run was not kept, or the folder cannot be written.
        RunFailed: what was written does not predict as the run did; nothing is left.
    """
    if to not in get_args(To):
        raise BadInput(f"to={to!r}: give one of {', '.join(get_args(To))}")
    if not re.fullmatch(r"[\w.+-]+", license):
        raise BadInput(
            f"license={license!r}: give an identifier such as apache-2.0, without spaces"
        )
    result = run if isinstance(run, Result) else load_run(run, results)
    folder = Path(f"{result.run_id}-{to}" if out is None else out).expanduser().absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInput(f"{folder} exists: give another --out, or remove it")
    own = {"retrain": options.pop("retrain", False)}
    trained = Trained(result, options, device="cpu", **own)  # where programs are computed
    network = trained.network(after)
    learned = len(trained.plan.stream) if after is None else after
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as made:
            part = Path(made) / "model"
            part.mkdir()
            with quiet():
                predict, usage = _write(network, trained.plan, to, part)
                check = _checked(predict, network, trained.plan, result, learned)
            facts = facts_of(result, trained.plan, network, learned, to)
            name = "config.json" if to != "hf" else "cl_platform.json"  # that of the library stays
            (part / name).write_text(json_of(facts))
            (part / "README.md").write_text(card_of(result, facts, usage, check, license))
            shutil.copytree(part, folder, dirs_exist_ok=True)
    except OSError as error:
        raise cannot("write", folder, error) from error
    return Export(folder, check)


def _write(network: Network, plan: Plan, to: To, folder: Path) -> tuple[Predict, str]:
    """Write a model; return what reads it again, and how others do."""
    if to == "hf":
        return huggingface.write(network, plan.config.model, folder)
    train = plan.stream[0].train
    rows = torch.arange(4, device=train.index.device) % len(train)
    program = program_of(network, train.gather(rows).cpu())
    form = FORMATS[to]
    form.write(program, folder)
    task = ", task" if len(program.inputs) > 1 else ""
    return form.read(folder, len(program.inputs)), form.usage.format(task=task)


def _checked(predict: Predict, network: Network, plan: Plan, result: Result, after: int) -> str:
    """Return a line about how a model that was read again differs from the run's own.

    Raises:
        RunFailed: it predicts otherwise, or the run's own does not reproduce its row here.
    """
    expected, mask = result.matrix.after(after), OWN_MASK[result.scenario]
    logits = difference(predict, network, plan)
    line = f"largest difference of logits {logits:.1e} (of max(1, |logit|))"
    if not logits <= TOLERANCE:
        raise RunFailed(f"the exported model predicts otherwise: {line}; nothing was written")
    accuracy, own = (
        max(abs(a - b) for a, b in zip(row_of(p, plan), expected, strict=True))
        for p in (predict, network)
    )
    measured = f"{result.config['device']} in {result.config['precision']}"
    if own > TOLERANCE and measured == "cpu in float32":  # elsewhere, near ties may end otherwise
        raise RunFailed(
            f"the model of run {result.run_id} has accuracies that differ from row {after} of its "
            f"matrix by {own:.1e}; nothing was written: run it again into another folder"
        )
    return (
        f"Read again and compared with row {after} of the run's matrix: {line}, of accuracies "
        f"{accuracy:.1e}, on all test data under the mask {mask} (the run was on {measured})."
    )
