"""What a new process imports, and that it works without the libraries of an extra."""

from __future__ import annotations

import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest

from cl_platform.report.render import render
from cl_platform.report.runs import Runs, read_runs
from tests.helpers.report_runs import changed, one_run, put
from tests.results.test_plots import made_up


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Runs of two strategies on two streams, of which the report draws ranks."""
    model, out = one_run(), tmp_path_factory.mktemp("report") / "out"
    for i, (stream, strategy) in enumerate(product(("blobs", "others"), ("er", "si"))):
        put(out, changed(model, i, stream={"name": stream}, strategy={"name": strategy}))
    return read_runs(out)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["run", "--help"], ["list", "--help"], ["rank", "--help"]]
)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    heavy = [
        "torch",
        "wandb",
        "ray",
        "avalanche",
        "torchvision",
        "pandas",
        "sklearn",
        "matplotlib",
        "numpy",
        "scipy",
        "ot",
        "streams.curricula.distances",
    ]
    program = (
        "import sys\nfrom cl_platform.cli.app import call\n"
        f"call({arguments!r})\nprint([m for m in {heavy!r} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stderr == "[]\n"
    assert "Usage: clp" in done.stdout


def test_a_run_imports_only_what_it_uses(tmp_path: Path) -> None:
    unused = ["wandb", "ray", "avalanche", "torchvision", "pandas", "matplotlib", "torch._dynamo"]
    program = (
        "import sys\nfrom cl_platform.cli.app import call\n"
        f"call(['run', '--stream', 'blobs', '--json'])\n"
        f"print([m for m in {unused!r} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stderr == "[]\n"


def test_without_the_libraries_there_is_one_line_and_the_rest_goes_on(tmp_path: Path) -> None:
    code = """
import sys
for name in ("timm", "torchvision", "transformers", "ray"):
    sys.modules[name] = None
from cl_platform.cli.app import call
print(call(["list", "models"]), file=sys.stderr)
blobs = ["run", "--stream", "split-digits", "--strategy", "finetune"]
print(call([*blobs, "--model", "small-vit"]), file=sys.stderr)
print(call([*blobs, "--model", "tiny-transformer", "--json"]), file=sys.stderr)
print(call(["sweep", "sweep.yaml"]), file=sys.stderr)
"""
    (tmp_path / "sweep.yaml").write_text("{base: {stream: blobs}, axes: {seed: [0, 1]}}")
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    listed, *fault, refused, went_on, without_ray, no_sweep = done.stderr.splitlines()
    assert (listed, refused, went_on, no_sweep) == ("0", "2", "0", "2")
    assert without_ray == "error: sweeps need Ray: install the extra `sweeps`"
    assert len(fault) == 1
    assert "vision transformers need timm; install the extra `vision`" in fault[0]


@pytest.mark.parametrize(
    ("package", "kind"), [("plotly", "html"), ("pyarrow", "parquet"), ("matplotlib", "html")]
)
def test_a_package_that_is_missing_is_named_with_its_extra(
    runs: Runs, tmp_path: Path, package: str, kind: str
) -> None:
    code = (
        f"import sys; sys.modules[{package!r}] = None; from cl_platform.cli.app import main; main()"
    )
    words = ["report", str(runs.folder), "--format", kind, "--out", str(tmp_path / "new")]
    made = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert (made.returncode, made.stdout) == (2, "")
    (line,) = made.stderr.splitlines()
    assert "install the extra `report`" in line
    assert package in line
    assert not (tmp_path / "new").exists()


def test_tables_need_neither_torch_nor_what_draws(runs: Runs) -> None:
    gone = "for name in ('plotly', 'matplotlib', 'pyarrow'): sys.modules[name] = None"
    code = f"import sys\n{gone}\nfrom cl_platform.cli.app import call; call(sys.argv[1:])"
    code += "\nassert 'torch' not in sys.modules"
    words = ["report", str(runs.folder), "--format", "latex"]
    made = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert (made.returncode, made.stderr) == (0, "")
    assert made.stdout.encode() == render(runs, "latex")


LOADED = "from pathlib import Path; from cl_platform import Result; found = Result.load(Path('.'))"


def python(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Code in a new process, in a folder with a result."""
    made_up(2).save(folder)
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)


def test_figures_need_no_display_and_leave_nothing_open(tmp_path: Path) -> None:
    code = "found.plot_matrix(); import sys; print({'torch', 'matplotlib.pyplot'} & {*sys.modules})"
    made = python(f"{LOADED}; {code}", tmp_path)
    assert (made.stdout, made.stderr) == ("set()\n", "")


def test_without_matplotlib_the_extra_is_named(tmp_path: Path) -> None:
    gone = "import sys; sys.modules['matplotlib'] = sys.modules['matplotlib.figure'] = None"
    made = python(f"{gone}; {LOADED}; found.plot_matrix()", tmp_path)
    assert made.returncode == 1
    last = made.stderr.splitlines()[-1]
    assert "BadInput" in last
    assert "extra `report`" in last
