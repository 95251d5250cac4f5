"""The settings of this process that runs share: whatever a user's code changes of them is put back.

The same run has the same numbers whichever runs came before it in its process.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, partial
from typing import Any, NamedTuple

# Set by what serves a run for as long as the process lives: W&B's service, and cuBLAS's workspace.
LASTING = ("WANDB_", "CUBLAS_WORKSPACE_CONFIG")


def wait_asleep() -> None:
    """Have threads that wait for each other sleep, not spin; to be called before torch is loaded.

    A spinning thread takes the core from the one that it waits for wherever something else runs as
    well: two threads beside a busy process took up to ten times as long as one.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read by all implementations of OpenMP


@contextmanager
def uncollected() -> Iterator[None]:
    """Collect no garbage while a program is loaded, and walk through none of what it is later.

    One look at all of torch's objects takes a tenth of the time of a short run.
    """
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():  # once: what else is garbage would be kept as well
            gc.freeze()
        gc.enable()


class Ending:
    """How a process that is told to end (SIGTERM) leaves the training in it time for a checkpoint.

    Attributes:
        attended: training looks at `told` after each step, and ends the process by an interrupt.
        told: the process was told to end.
    """

    attended = False
    told = False

    def tell(self) -> bool:
        """Tell the process to end; return whether training sees to it, which it does once."""
        sees = self.attended and not self.told
        self.told = True
        return sees


ENDING = Ending()


class Setting(NamedTuple):
    """Something that a process has one of: how to read it, and how to put a value back."""

    name: str
    get: Callable[[], Any]
    put: Callable[[Any], object]


@contextmanager
def process_restored() -> Iterator[list[str]]:
    """Put back in the end what is changed inside: threads, precision, backends, gradient mode,
    directory, environment, signal handlers, warnings.

    Yields:
        A list, which after the end names what could not be put back.
    """
    before = [(setting, _read(setting)) for setting in _settings()]
    left: list[str] = []
    with warnings.catch_warnings():
        try:
            yield left
        finally:
            changed = [(setting, value) for setting, value in before if _read(setting) != value]
            for setting, value in changed:
                with suppress(Exception):  # what fails is found below
                    setting.put(value)
            left += [setting.name for setting, value in changed if _read(setting) != value]


def _read(setting: Setting) -> Any:
    """Return the value of a setting; None while it has none, as a removed working directory."""
    try:
        return setting.get()
    except Exception:
        return None


@cache
def _settings() -> tuple[Setting, ...]:
    return (
        Setting("working directory", os.getcwd, os.chdir),
        Setting("environment", _environment, _set_environment),
        Setting("signal handlers", _handlers, _set_handlers),
        Setting("garbage collection", gc.isenabled, lambda on: gc.enable() if on else gc.disable()),
        Setting("recursion limit", sys.getrecursionlimit, sys.setrecursionlimit),
        *(_attribute(sys, name) for name in ("stdout", "stderr")),
        *_of_numpy(),
        *_of_torch(),
    )


def _attribute(owner: Any, name: str) -> Setting:
    shown = f"{getattr(owner, '__name__', type(owner).__name__)}.{name}"
    return Setting(shown, partial(getattr, owner, name), partial(setattr, owner, name))


def _environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith(LASTING)}


def _set_environment(values: dict[str, str]) -> None:
    for name in _environment().keys() - values.keys():
        del os.environ[name]
    os.environ.update(values)


def _handlers() -> dict[int, Any]:
    """Return the handlers of signals, which the main thread alone can set."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {number: signal.getsignal(number) for number in signal.valid_signals()}


def _set_handlers(handlers: dict[int, Any]) -> None:
    for number, handler in handlers.items():
        if signal.getsignal(number) != handler:
            signal.signal(number, handler)


def _of_numpy() -> list[Setting]:
    import numpy as np  # here, as torch below: `clp --help` has no time for them

    return [Setting("numpy.seterr", np.geterr, lambda errors: np.seterr(**errors))]


def _of_torch() -> list[Setting]:
    import torch
    from torch import backends, cuda
    from torch.backends import opt_einsum  # torch 2.7 leaves it to be imported

    def function(name: str, get: Callable[[], Any], put: Callable[[Any], object]) -> Setting:
        return Setting(f"torch.{name}", get, put)

    def denormals_are_zero() -> bool:
        return (torch.tensor(1e-310, dtype=torch.float64, device="cpu") * 1).item() == 0

    def deterministic() -> tuple[bool, bool]:
        warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
        return torch.are_deterministic_algorithms_enabled(), warn_only

    def set_deterministic(mode: tuple[bool, bool]) -> None:
        torch.use_deterministic_algorithms(mode[0], warn_only=mode[1])

    settings = [
        function("set_num_threads", torch.get_num_threads, torch.set_num_threads),
        function(
            "set_num_interop_threads", torch.get_num_interop_threads, torch.set_num_interop_threads
        ),
        # First the device: what follows makes tensors. Putting "cpu" would wrap every call.
        function(
            "set_default_device",
            lambda: torch.empty(0).device,  # torch 2.7 cannot be asked once None was put
            lambda d: torch.set_default_device(None if d.type == "cpu" else d),
        ),
        function("set_default_dtype", torch.get_default_dtype, torch.set_default_dtype),
        function("set_grad_enabled", torch.is_grad_enabled, torch.set_grad_enabled),
        function("inference_mode", torch.is_inference_mode_enabled, lambda _: None),
        function("use_deterministic_algorithms", deterministic, set_deterministic),
        function("set_flush_denormal", denormals_are_zero, torch.set_flush_denormal),
        function("set_detect_anomaly", torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
        function(
            "set_float32_matmul_precision",
            torch.get_float32_matmul_precision,
            torch.set_float32_matmul_precision,
        ),
        function("nnpack", torch._C._get_nnpack_enabled, backends.nnpack.set_flags),
        function("mha", backends.mha.get_fastpath_enabled, backends.mha.set_fastpath_enabled),
        function(
            "cuda.set_device",
            lambda: cuda.current_device() if cuda.is_initialized() else 0,
            cuda.set_device,
        ),
    ]
    for device in ("cpu", "cuda"):
        settings += [
            function(
                f"autocast {device}",
                partial(torch.is_autocast_enabled, device),
                partial(torch.set_autocast_enabled, device),
            ),
            function(
                f"autocast {device} dtype",
                partial(torch.get_autocast_dtype, device),
                partial(torch.set_autocast_dtype, device),
            ),
        ]
    for kernel in ("flash", "math", "mem_efficient", "cudnn"):
        get = getattr(backends.cuda, f"{kernel}_sdp_enabled")
        put = getattr(backends.cuda, f"enable_{kernel}_sdp")
        settings.append(function(f"{kernel}_sdp", get, put))
    names: dict[Any, list[str]] = {  # of precision first the old name, which also sets the new ones
        backends: ["fp32_precision"],
        backends.mkldnn: ["enabled", "deterministic", "fp32_precision"],
        backends.cudnn: ["enabled", "benchmark", "deterministic", "allow_tf32", "fp32_precision"],
        opt_einsum: ["enabled", "strategy"],
        backends.quantized: ["engine"],
        backends.cuda.matmul: [
            "allow_tf32",
            "fp32_precision",
            "allow_fp16_reduced_precision_reduction",
            "allow_bf16_reduced_precision_reduction",
        ],
    }
    for library in (backends.mkldnn, backends.cudnn):
        parts = [getattr(library, part, None) for part in ("matmul", "conv", "rnn")]
        names |= {part: ["fp32_precision"] for part in parts if part is not None}
    return settings + [
        _attribute(owner, name)
        for owner, attributes in names.items()
        for name in attributes
        if hasattr(owner, name)
    ]
