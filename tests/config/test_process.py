"""What is changed of the process inside is put back, and what cannot be is named."""

from __future__ import annotations

import gc
import os
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cl_platform.config import process
from cl_platform.config.process import Setting, process_restored

CHANGES: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "threads": (lambda: torch.set_num_threads(3), torch.get_num_threads),
    "dtype": (lambda: torch.set_default_dtype(torch.float64), torch.get_default_dtype),
    "device": (lambda: torch.set_default_device("meta"), lambda: torch.empty(0).device),
    "precision": (
        lambda: torch.set_float32_matmul_precision("medium"),
        torch.get_float32_matmul_precision,
    ),
    "mkldnn": (
        lambda: setattr(torch.backends.mkldnn, "enabled", False),
        lambda: torch.backends.mkldnn.enabled,
    ),
    "tf32": (  # of convolutions
        lambda: setattr(torch.backends.cudnn, "allow_tf32", False),
        lambda: torch.backends.cudnn.allow_tf32,
    ),
    "gradients": (lambda: torch.set_grad_enabled(False), torch.is_grad_enabled),
    "anomalies": (
        lambda: torch.autograd.set_detect_anomaly(True),
        torch.is_anomaly_enabled,
    ),
    "autocast": (
        lambda: torch.set_autocast_enabled("cpu", True),
        lambda: torch.is_autocast_enabled("cpu"),
    ),
    "denormals": (
        lambda: torch.set_flush_denormal(True),
        lambda: bool(torch.tensor(1e-310, dtype=torch.float64) * 1 == 0),
    ),
    "numpy": (lambda: np.seterr(all="raise"), np.geterr),
    "directory": (lambda: os.chdir("/"), os.getcwd),
    "environment": (
        lambda: os.environ.update(CLP_DATA="elsewhere", NEW="1"),
        lambda: (os.environ.get("CLP_DATA"), os.environ.get("NEW")),
    ),
    "signals": (
        lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN),
        lambda: signal.getsignal(signal.SIGTERM),
    ),
    "warnings": (lambda: warnings.simplefilter("ignore"), lambda: warnings.filters[0]),
    "garbage": (gc.disable, gc.isenabled),
    "output": (lambda: setattr(sys, "stdout", sys.__stdin__), lambda: sys.stdout),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_changed_is_put_back(name: str, tmp_path: Path) -> None:
    change, look = CHANGES[name]
    before = look()
    with process_restored() as left:
        change()
        assert look() != before
    assert left == []
    assert look() == before


def test_what_fails_keeps_no_change_either() -> None:
    before = np.geterr()

    def fail() -> None:
        with process_restored():
            np.seterr(all="raise")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert np.geterr() == before


def test_the_new_and_the_old_names_of_precision_may_be_mixed() -> None:
    matmul = getattr(torch.backends.mkldnn, "matmul", None)
    if matmul is None:
        pytest.skip("torch before 2.9 has the old names only")
    before = matmul.fp32_precision
    with process_restored() as left:
        matmul.fp32_precision = "bf16"
        with pytest.raises(RuntimeError):
            torch.get_float32_matmul_precision()
    assert (left, matmul.fp32_precision) == ([], before)
    assert torch.get_float32_matmul_precision() == "highest"


def test_what_cannot_be_put_back_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"threads": 1, "stuck": 1}

    def refuse(value: int) -> None:
        raise RuntimeError("only once in a process")

    settings = (
        Setting("stuck", lambda: values["stuck"], refuse),
        Setting("threads", lambda: values["threads"], lambda v: values.update(threads=v)),
    )
    monkeypatch.setattr(process, "_settings", lambda: settings)
    with process_restored() as left:
        values.update(threads=2, stuck=2)
    assert left == ["stuck"]
    assert values == {"threads": 1, "stuck": 2}


def test_a_mode_that_was_entered_and_not_left_is_named() -> None:
    mode = torch.inference_mode()
    with process_restored() as left:
        mode.__enter__()
    mode.__exit__(None, None, None)
    assert left == ["torch.inference_mode"]


def test_what_serves_runs_for_good_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_SERVICE", raising=False)
    with process_restored():
        monkeypatch.setenv("WANDB_SERVICE", "its address")
    assert os.environ["WANDB_SERVICE"] == "its address"
