"""What a release is made of says one thing everywhere: version, extras, guide, image, hooks."""

from __future__ import annotations

import fnmatch
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from cl_platform import __version__
from cl_platform.cli.doctor import PURPOSES

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
CHANGELOG = (ROOT / "CHANGELOG.md").read_text()
GUIDE = (ROOT / "CONTRIBUTING.md").read_text()
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text()
IGNORED = (ROOT / ".dockerignore").read_text().split("\n")
KINDS = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")


def test_the_version_is_the_newest_of_the_changelog_and_stands_nowhere_else() -> None:
    versions = re.findall(r"^## (.*)$", CHANGELOG, re.MULTILINE)
    assert versions[0] == "Unreleased"
    assert re.fullmatch(rf"{re.escape(__version__)} - \d{{4}}-\d\d-\d\d", versions[1])
    numbers = [[int(n) for n in name.split()[0].split(".")] for name in versions[1:]]
    assert numbers == sorted(numbers, reverse=True)
    assert PROJECT["dynamic"] == ["version"]
    assert "version" not in yaml.safe_load((ROOT / "CITATION.cff").read_text())


def test_the_changelog_sorts_changes_by_their_kind() -> None:
    for part in re.split(r"^## ", CHANGELOG, flags=re.MULTILINE)[1:]:
        kinds = re.findall(r"^### (.*)$", part, re.MULTILINE)
        assert kinds == [kind for kind in KINDS if kind in kinds]  # each once, in this order
        first = part.partition("\n### ")[0]
        assert "\n- " not in first  # none without a kind


def test_the_citation_has_what_its_format_asks_for() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["license"] == PROJECT["license"]
    assert [author["name"] for author in citation["authors"]] == [
        author["name"] for author in PROJECT["authors"]
    ]


def test_every_extra_has_a_purpose_and_is_part_of_all() -> None:
    sums = {"all", "dev", "docs"}  # docs makes the site, and is for nobody who runs experiments
    assert EXTRAS.keys() - sums == PURPOSES.keys()
    (everything,) = EXTRAS["all"]
    assert set(re.findall(r"[\w-]+", everything.partition("[")[2])) == PURPOSES.keys()
    assert "cl-platform[all]" in EXTRAS["dev"]


def test_messages_and_docs_name_extras_that_there_are() -> None:
    folders = ("cl_platform", "streams", "strategies", "sweeps", "docs", "examples")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.*")]
    files += ROOT.glob("*.md")
    named = re.compile(r"extra [`'\"]+([\w-]+)[`'\"]|cl-platform\[([\w,]+)\]")
    found = {
        (path.name, name)
        for path in files
        if path.suffix in (".py", ".md", ".yaml", ".sh")
        for groups in named.findall(path.read_text())
        for name in "".join(groups).split(",")
    }
    assert len(found) > 10
    assert not {(path, name) for path, name in found if name not in EXTRAS}


def test_what_the_guide_names_exists() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", GUIDE)
    assert len(links) > 12
    assert all((ROOT / link).exists() for link in links)
    groups = {f"cl_platform.{part}" for part in re.findall(r"`cl_platform\.(\w+)`", GUIDE)}
    registered = {group for group in PROJECT["entry-points"] if group.startswith("cl_platform.")}
    assert groups == registered | {"cl_platform.metrics"}  # ours register where they are defined


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile as pairs of an instruction and its arguments, lines joined."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE).replace("\\\n", "")
    words = [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]
    return [(word, arguments) for word, arguments in words]


def test_the_image_is_written_as_it_should_be() -> None:
    found = instructions()
    known = {"ARG", "FROM", "RUN", "WORKDIR", "COPY", "USER", "ENV", "CMD"}
    assert {word for word, _ in found} <= known
    assert [word for word, _ in found][:2] == ["ARG", "FROM"]
    users = [arguments for word, arguments in found if word == "USER"]
    assert users[-1:] == ["clp"]  # not root
    assert not [a for word, a in found if word == "FROM" and not re.search(r":\S*\$\{PYTHON\}", a)]
    for word, arguments in found:
        if word == "RUN":
            subprocess.run(["sh", "-n", "-c", arguments], check=True)
            assert "pip install " not in arguments or "--no-cache" in arguments
            assert "apt-get install" not in arguments or "rm -rf /var/lib/apt/lists" in arguments
    for name in re.findall(r"\$\{?([A-Z]+)\b", DOCKERFILE.replace("$PWD", "")):
        assert f"ARG {name}=" in DOCKERFILE


def test_the_image_gets_what_it_copies_and_nothing_else() -> None:
    copied = {
        source
        for word, arguments in instructions()
        if word == "COPY" and "--from" not in arguments
        for source in [a for a in arguments.split() if not a.startswith("--")][:-1]
    }
    assert IGNORED.count("*") == 1
    allowed = {line[1:] for line in IGNORED if line.startswith("!")}
    assert copied == allowed
    assert all((ROOT / name).exists() for name in copied)
    packages = {"cl_platform", "strategies", "streams", "sweeps"}
    assert packages <= copied
    for secret in (".env", ".git", ".venv", "clp-results", "tests"):
        assert not any(fnmatch.fnmatch(secret, name) for name in allowed)


def test_hooks_run_what_the_environment_has() -> None:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repository["repo"] == "local"  # nothing is downloaded
    for hook in repository["hooks"]:
        tool = Path(hook["entry"].split()[0])
        assert tool.parent == Path(".venv/bin")
        assert any(need.startswith(tool.name) for need in EXTRAS["dev"])


@pytest.mark.parametrize("name", ["LICENSE", "SECURITY.md", "CITATION.cff", "CONTRIBUTING.md"])
def test_what_a_project_needs_is_there(name: str) -> None:
    assert (ROOT / name).stat().st_size > 200
