"""The energy of training, by a counter that stands for that of a GPU."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

import cl_platform as clp
from cl_platform.engine.machine import energy
from cl_platform.engine.machine.cost import Meter
from cl_platform.engine.machine.energy import counter_of

CPU, GPU = torch.device("cpu"), torch.device("cuda", 1)
STREAM = {"name": "blobs", "experiences": 3, "samples_per_class": 20}


class NVML(ModuleType):
    """Counts 5 J between two readings."""

    NVMLError = RuntimeError

    def __init__(self) -> None:
        super().__init__("pynvml")
        self.millijoules, self.asked = 1e6, []

    def nvmlInit(self) -> None: ...  # noqa: N802

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        self.asked.append(uuid)
        return uuid

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:  # noqa: N802
        self.millijoules += 5000
        return int(self.millijoules)


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> NVML:
    stub = NVML()
    monkeypatch.setitem(sys.modules, "pynvml", stub)
    properties = SimpleNamespace(uuid="ab-12")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    counter_of.cache_clear()
    yield stub
    counter_of.cache_clear()


def test_a_gpu_is_found_by_its_own_name_and_read_in_joules(nvml: NVML) -> None:
    read = counter_of(GPU)
    assert read is not None
    assert nvml.asked == ["GPU-ab-12"]
    assert read() - read() == -5


def test_there_is_none_on_a_cpu_without_nvml_or_without_its_counter(
    nvml: NVML, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)  # any import raises
    assert counter_of(CPU) is None
    assert counter_of(GPU) is None
    counter_of.cache_clear()
    monkeypatch.setitem(sys.modules, "pynvml", nvml)

    def unsupported(handle: str) -> int:
        raise RuntimeError("not supported")

    monkeypatch.setattr(nvml, "nvmlDeviceGetTotalEnergyConsumption", unsupported)
    assert counter_of(GPU) is None


def test_evaluations_in_the_midst_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    spent = 100.0
    monkeypatch.setattr("cl_platform.engine.machine.cost.counter_of", lambda device: lambda: spent)
    meter = Meter(CPU, count_flops=False)
    assert "energy_joules" not in meter.cost()  # not yet, and never where others train beside it
    with meter.training():
        spent += 7
        with meter.evaluating():
            spent += 30
        assert meter.cost()["energy_joules"] == 7
        spent += 2
    spent += 1000
    meter.before = {"energy_joules": 1.0}  # until a checkpoint
    assert meter.cost()["energy_joules"] == 10
    assert "energy_joules" not in Meter(CPU, count_flops=False, energy=False).cost()


def test_a_run_sums_it_over_its_experiences(nvml: NVML, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "energy_joules" not in clp.run(STREAM, "finetune", out=None).cost
    read = energy._read
    monkeypatch.setattr(
        "cl_platform.engine.machine.cost.counter_of", lambda device: lambda: read(nvml, "GPU")
    )
    assert clp.run(STREAM, "finetune", out=None).cost["energy_joules"] == 3 * 5
