"""A trained network as a program: a Python function of torch's basic operations, and its tensors.

Only what the prediction uses is in it: no memory of samples, no teacher, no penalty.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from cl_platform.deploy.network import Network
from cl_platform.errors import BadInput, one_line

# What the source of a function may refer to; see TEMPLATE.
GLOBALS = {"inf", "nan", "torch", "device", "NoneType", "fx_pytree", "pytree"}
TEMPLATE = '''"""A classifier in plain PyTorch: {given} in, logits out; see README.md.

    from {file} import Model
    logits = Model()({inputs})

It needs torch and safetensors, and reads {file}.safetensors beside it. Computed on the CPU.
"""

from math import inf, nan
from pathlib import Path

import torch
from torch import device

TENSORS = {tensors}


{function}

class Model(torch.nn.Module):
    def __init__(self, tensors=None):
        super().__init__()
        if tensors is None:
            from safetensors.torch import load_file

            tensors = load_file(Path(__file__).with_name("{file}.safetensors"))
        for argument, name in TENSORS.items():
            self.register_buffer(argument, tensors[name])

    def forward(self, {inputs}):
        """Return logits (B, n_classes); -inf for a class that may not be predicted."""
        return program(*(getattr(self, argument) for argument in TENSORS), {inputs})[0]
'''


@dataclass(frozen=True, eq=False)
class Program:
    """A network without its classes.

    Args:
        source: of a module in Python with a class ``Model``, which needs nothing of this package.
        tensors: its weights, by the names that they have in the network.
        inputs: ``raw``, and ``task`` in the task scenario.
        example: arguments of the model.
        file: its name, without an ending.
    """

    source: str
    tensors: dict[str, Tensor]
    inputs: tuple[str, ...]
    example: tuple[Tensor, ...]
    file: str = "model"

    def model(self) -> nn.Module:
        """Return the model that the source describes."""
        names: dict[str, Any] = {"__name__": "model", "__file__": ""}
        exec(compile(self.source, "model.py", "exec"), names)
        model: nn.Module = names["Model"](self.tensors)
        return model.eval()

    def dynamic(self) -> dict[str, dict[int, Any]]:
        """Return which axes may have any size: the first."""
        batch = torch.export.Dim("batch", min=1)
        return {name: {0: batch} for name in self.inputs}


def program_of(
    network: Network, raw: Tensor, *, file: str = "model", given: str = "stored inputs"
) -> Program:
    """Return the program of a network on the CPU.

    Args:
        raw: a few stored inputs (B, ...), at least two.
        file, given: what the source calls itself, and its inputs.

    Raises:
        BadInput: its prediction takes other ways for other inputs, which no program can hold.
    """
    tasks = torch.zeros(len(raw), dtype=torch.int64)
    example = (raw, tasks) if network.scenario == "task" else (raw,)
    inputs = ("raw", "task")[: len(example)]
    program = Program("", {}, inputs, example)
    try:
        with torch.no_grad():
            flat = _Flat(network)
            traced = torch.export.export(flat, example, dynamic_shapes=program.dynamic())
            traced = traced.run_decompositions({})  # contexts become operations
    except Exception as error:
        kind = type(network.strategy).__name__
        raise BadInput(
            f"the prediction of {kind} depends on its batch or branches on data, which torch, "
            f"safetensors and onnx files cannot hold ({one_line(error, 120)}); use "
            "result.model() with torch.save instead"
        ) from error
    names = {argument: flat.names.get(name, name) for argument, name in _names(traced).items()}
    graph = traced.graph_module.graph
    for node in list(graph.nodes):
        if "_assert_tensor_metadata" in str(node.target):  # it holds a program to its device
            graph.erase_node(node)
    unused = [node for node in graph.nodes if node.op == "placeholder" and not node.users]
    for node in unused:
        if node.name in names:
            graph.erase_node(node)
            del names[node.name]
    code = graph.python_code("self")
    if strange := sorted(code.globals.keys() - GLOBALS):
        raise BadInput(f"the program of the network refers to {', '.join(strange)}, unknown to us")
    head = code.src[code.src.index("def forward(self, ") :].replace("def forward(self, ", "", 1)
    source = TEMPLATE.format(
        inputs=", ".join(inputs),
        file=file,
        given=given,
        tensors=_listed(names),
        function=f"def program({head.strip()}\n",
    )
    constants = {name: t for name, t in traced.constants.items() if isinstance(t, Tensor)}
    held = {**constants, **{flat.names[name]: t for name, t in flat.named_buffers()}}
    tensors = {name: held[name].detach().clone().contiguous() for name in names.values()}
    return Program(source, tensors, inputs, example, file)


class _Flat(nn.Module):
    """A network as a function of its tensors: the exporter follows the calls of modules, which
    methods that enter a network half-way do not nest as it expects.

    Attributes:
        names: of the tensors in the network, by their names here.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self._network = (network,)  # no module of this one
        self.names: dict[str, str] = {}
        for name, tensor in (*network.named_parameters(), *network.named_buffers()):
            own = name.replace(".", "_")
            while own in self.names:
                own += "_"
            self.names[own] = name
            self.register_buffer(own, tensor.detach())

    def forward(self, raw: Tensor, task: Tensor | None = None) -> Tensor:
        tensors = {name: self.get_buffer(own) for own, name in self.names.items()}
        logits: Tensor = functional_call(self._network[0], tensors, (raw, task))
        return logits


def _names(traced: torch.export.ExportedProgram) -> dict[str, str]:
    """Return the names of tensors by those of the arguments that stand for them, in order."""
    signature = traced.graph_signature
    maps: tuple[Mapping[str, str], ...] = (
        signature.inputs_to_parameters,
        signature.inputs_to_buffers,
        signature.inputs_to_lifted_tensor_constants,
    )
    names = {argument: name for found in maps for argument, name in found.items()}
    places = [node.name for node in traced.graph.nodes if node.op == "placeholder"]
    return {argument: names[argument] for argument in places if argument in names}


def _listed(names: Mapping[str, str]) -> str:
    lines = [f"    {argument!r}: {name!r},\n" for argument, name in names.items()]
    return f"{{\n{''.join(lines)}}}"


@contextmanager
def quiet() -> Iterator[None]:
    """Leave out what the exporters of torch warn and log of on their way."""
    loggers = [logging.getLogger(name) for name in ("torch", "torch.export", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
