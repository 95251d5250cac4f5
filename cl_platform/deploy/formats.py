"""Formats that hold any program: PyTorch's own, safetensors with its source, and ONNX."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cl_platform.deploy.program import Program
from cl_platform.deploy.scoring import Predict
from cl_platform.errors import BadInput

LARGEST_ONNX = 2 * 10**9  # bytes of one file; its weights are in another one beyond


class Format(NamedTuple):
    """How a program is written into a folder, read again by its number of inputs, and used."""

    write: Callable[[Program, Path], None]
    read: Callable[[Path, int], Predict]
    usage: str


def write_torch(program: Program, folder: Path) -> None:
    """Write ``model.pt2``, which ``torch.export.load`` reads."""
    with torch.no_grad():
        exported = torch.export.export(
            program.model(), program.example, dynamic_shapes=program.dynamic()
        )
        torch.export.save(exported, folder / "model.pt2")


def read_torch(folder: Path, n: int) -> Predict:
    return _called(torch.export.load(folder / "model.pt2").module(), n)


def write_safetensors(program: Program, folder: Path) -> None:
    """Write ``model.safetensors`` and ``model.py``, which reads it, or under another name."""
    from safetensors.torch import save  # its own files are for their owner alone

    (folder / f"{program.file}.safetensors").write_bytes(save(program.tensors, {"format": "pt"}))
    (folder / f"{program.file}.py").write_text(program.source)


def read_safetensors(folder: Path, n: int, file: str = "model") -> Predict:
    return _called(runpy.run_path(str(folder / f"{file}.py"))["Model"](), n)


def write_onnx(program: Program, folder: Path) -> None:
    """Write ``model.onnx``.

    Raises:
        BadInput: the extra `export` is not installed, or ONNX lacks an operation.
    """
    runtime()
    size = sum(t.numel() * t.element_size() for t in program.tensors.values())
    model, example = program.model(), program.example
    try:
        with torch.no_grad():
            found: Any = torch.onnx.export(
                model, example, dynamo=True, dynamic_shapes=program.dynamic(), verbose=False,
                output_names=["logits"],
            )  # fmt: skip
            found.save(str(folder / "model.onnx"), external_data=size > LARGEST_ONNX)
    except Exception as error:
        raise BadInput(
            f"ONNX cannot hold this model ({type(error).__name__}: {error!s:.120}); give --to "
            "torch or safetensors"
        ) from error


def read_onnx(folder: Path, n: int) -> Predict:
    session = runtime().InferenceSession(str(folder / "model.onnx"))
    names = [item.name for item in session.get_inputs()]

    def predict(raw: Tensor, task: Tensor) -> Tensor:
        given = [raw.numpy(), task.numpy()][:n]
        logits = session.run(None, dict(zip(names, given, strict=True)))[0]
        return torch.from_numpy(logits)

    return predict


def runtime() -> Any:
    """Return the module onnxruntime.

    Raises:
        BadInput: it is not installed.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise BadInput(
            f"onnx needs the package {error.name}: install the extra `export`"
        ) from error
    return onnxruntime


def _called(model: Any, n: int) -> Predict:
    """Return a function of inputs and task labels; most models take only the first."""

    def predict(raw: Tensor, task: Tensor) -> Tensor:
        logits: Tensor = model(*(raw, task)[:n])
        return logits

    return predict


FORMATS = {
    "torch": Format(
        write_torch,
        read_torch,
        'model = torch.export.load("model.pt2").module()\nlogits = model(raw{task})',
    ),
    "safetensors": Format(
        write_safetensors,
        read_safetensors,
        "from model import Model  # model.py reads model.safetensors\n\n"
        "logits = Model()(raw{task})",
    ),
    "onnx": Format(
        write_onnx,
        read_onnx,
        "import onnxruntime\n\n"
        'session = onnxruntime.InferenceSession("model.onnx")\n'
        "names = [i.name for i in session.get_inputs()]\n"
        "(logits,) = session.run(None, dict(zip(names, (raw{task},))))  # arrays of numpy",
    ),
}
