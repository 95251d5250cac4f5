"""``clp doctor``: what is installed, what this machine has, and what is missing for what."""

from __future__ import annotations

import os
import platform
import re
import shutil
import tempfile
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from textwrap import wrap
from typing import Annotated, Any

from cyclopts import Parameter

from cl_platform._version import __version__
from cl_platform.cli.app import print_json
from cl_platform.errors import one_line, printable

# What each extra of pyproject.toml is for; `all` and `dev` are sums of them.
PURPOSES = {
    "sweeps": "many runs: clp sweep, clp submit",
    "report": "pages, pictures, Parquet",
    "wandb": "Weights & Biases",
    "mlflow": "runs in MLflow",
    "tensorboard": "runs in TensorBoard",
    "trackio": "a dashboard without an account",
    "vision": "image data, image models",
    "text": "token ids, text encoders",
    "hub": "data sets of Hugging Face",
    "curricula": "optimal transport (distance=ot)",
    "export": "clp export --to onnx or hf",
    "cloud": "--out s3://bucket/folder",
    "energy": "energy of NVIDIA GPUs",
    "avalanche": "Avalanche's methods and data",
}
_REQUIREMENT = re.compile(
    r"(?P<name>[\w.-]+)(?:\[(?P<extras>[^]]*)\])?(?P<bounds>[^;]*)"
    r"(?:;.*extra == ['\"](?P<extra>[\w-]+)['\"])?"
)


def doctor(
    *,
    out: str = "clp-results",
    json_: Annotated[bool, Parameter(name=["--json"], negative="")] = False,
) -> None:
    """Say what is installed, what this machine has, and what is missing for what.

    Nothing is contacted, trained or left behind. The exit code is 1 if `clp run` cannot work here;
    an extra that is not installed is no fault.

    Parameters
    ----------
    out
        The folder of results that is tried.
    json_
        Print one JSON document and nothing else.
    """
    found = examine(out)
    if json_:
        print_json(found)
    else:
        from cl_platform.tracking.console import new_console

        new_console().print("\n".join(map(printable, lines(found))), soft_wrap=True)
    if found["faults"]:
        raise SystemExit(1)


def examine(out: str) -> dict[str, Any]:
    """Return what there is, as plain values; ``faults`` holds a line for each that stops runs."""
    needed = packages()
    base = needed.pop("", {})
    faults = [f"{name} {fault}" for name, fault in _faults(base).items()]
    machine = _machine()
    results = _results(out)
    faults += [place["fault"] for place in (machine, results) if place["fault"]]
    return {
        "cl_platform": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "packages": base,
        "extras": {
            name: {"purpose": purpose, "packages": needed[name], "missing": _faults(needed[name])}
            for name, purpose in PURPOSES.items()
            if name in needed
        },
        "machine": machine,
        "results": results,
        "data": str(_data()),
        "ray": _ray(),
        "wandb": _wandb(),
        "faults": faults,
    }


def packages() -> dict[str, dict[str, dict[str, str | None]]]:
    """Return the packages that each extra needs, "" without any: lower bound and version found."""
    wanted: dict[str, dict[str, dict[str, str | None]]] = {}
    for line in requires("cl-platform") or []:
        match = _REQUIREMENT.match(line)
        if match and match["name"] != "cl-platform":  # a sum of extras says nothing new
            least = re.search(r">=\s*([\w.]+)", match["bounds"])
            wanted.setdefault(match["extra"] or "", {})[match["name"]] = {
                "least": least[1] if least else None,
                "installed": _version(match["name"]),
            }
    return wanted


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _faults(wanted: dict[str, dict[str, str | None]]) -> dict[str, str]:
    """Return what is wrong with packages, by name."""
    faults = {}
    for name, package in wanted.items():
        least, installed = package["least"], package["installed"]
        if installed is None:
            faults[name] = "is not installed"
        elif least and _release(installed) < _release(least):
            faults[name] = f"{installed} is older than {least}"
    return faults


def _release(text: str) -> list[int]:
    """Return the numbers of a version, without zeros at the end: 2.0 is 2."""
    digits = re.match(r"[\d.]*", text)
    numbers = [int(part) for part in (digits[0] if digits else "").split(".") if part]
    while numbers and not numbers[-1]:
        numbers.pop()
    return numbers


def _machine() -> dict[str, Any]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    machine: dict[str, Any] = {"cores": cores, "threads": None, "devices": {}, "fault": None}
    try:
        import torch

        gpus = range(torch.cuda.device_count())
        devices = {f"cuda:{i}": torch.cuda.get_device_name(i) for i in gpus}
    except Exception as error:  # whatever a broken installation raises
        return machine | {"fault": f"torch cannot be used: {one_line(error, 300)}"}
    if torch.backends.mps.is_available():
        devices["mps"] = platform.processor()
    devices = {"cpu": platform.machine()} | devices
    return machine | {"threads": torch.get_num_threads(), "devices": devices}


def _results(out: str) -> dict[str, Any]:
    """Return whether the folder can be written, by a file that is removed at once."""
    if "://" in out:
        return {"path": out, "free_gb": None, "fault": None}
    path = Path(out).expanduser()
    place = next(p for p in (path, *path.absolute().parents) if os.path.lexists(p))
    try:
        with tempfile.TemporaryFile(dir=place):
            free = round(shutil.disk_usage(place).free / 1e9, 1)
    except OSError as error:
        fault = f"{out} cannot be written ({error.strerror}); give --out another folder"
        return {"path": out, "free_gb": None, "fault": fault}
    return {"path": out, "free_gb": free, "fault": None}


def _data() -> Path:
    from cl_platform.storage.paths import data_home

    return data_home()


def _ray() -> str:
    """Return which Ray a sweep would use, from what this machine says of itself."""
    if address := os.environ.get("RAY_ADDRESS"):
        return f"--address auto: RAY_ADDRESS={address}"
    temporary = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())
    try:
        address = (temporary / "ray" / "ray_current_cluster").read_text().strip()
    except (OSError, ValueError):
        return "no cluster here; clp sweep starts one and ends it"
    return f"--address auto: {address} was started here"


def _wandb() -> str:
    """Return whether there is a key for the server; the key itself goes nowhere."""
    from netrc import NetrcParseError, netrc
    from urllib.parse import urlsplit

    server = os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai"
    host = urlsplit(server).hostname or server
    try:
        known = bool(os.environ.get("WANDB_API_KEY") or netrc(os.environ.get("NETRC")).hosts[host])
    except (OSError, KeyError, ValueError, NetrcParseError):
        known = False
    advice = "--wandb online can be tried" if known else "--wandb offline, or `wandb login` first"
    return f"{'a' if known else 'no'} key for {host}: {advice}"


def lines(found: dict[str, Any]) -> list[str]:
    """Return what was found as text of at most 80 columns, unless a path is longer."""
    text = [f"cl-platform {found['cl_platform']}, Python {found['python']}, {found['system']}"]
    text += ["", "needed by every run"]
    wrong = _faults(found["packages"])
    for name, package in found["packages"].items():
        text.append(f"  {name:<15}{wrong.get(name) or package['installed']}")
    text += ["", "extras"]
    for name, extra in found["extras"].items():
        state = f"missing: {', '.join(extra['missing'])}" if extra["missing"] else "installed"
        line = f"  {name:<12}{extra['purpose']:<33}{state}"
        text += wrap(line, 80, subsequent_indent=" " * 48)
    absent = [name for name, extra in found["extras"].items() if extra["missing"]]
    if absent:
        text.append(f"  to add one: pip install 'cl-platform[{absent[0]}]'")
    machine, results = found["machine"], found["results"]
    free = "" if results["free_gb"] is None else f", {results['free_gb']} GB free"
    places = [
        *(("--device", f"{name} ({kind})") for name, kind in machine["devices"].items()),
        ("threads", f"{machine['threads'] or 'unknown'}, on {machine['cores']} cores"),
        ("results", f"{results['path']}{free}"),
        ("data", found["data"]),
        ("Ray", found["ray"]),
        ("W&B", found["wandb"]),
    ]
    text += ["", "this machine (nothing is contacted)"]
    text += [f"  {name:<11}{value}" for name, value in places]
    faults = [f"error: {fault}" for fault in found["faults"]]
    return [*text, "", *(faults or ["clp run works here"])]
