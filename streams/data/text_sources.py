"""Sources of text data sets; see ``streams.data.sources``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cl_platform.errors import DataError
from streams.data.fetch import fetch
from streams.data.formats import Source
from streams.data.text_formats import (
    Texts,
    read_banking,
    read_clinc,
    read_newsgroups,
    read_newsgroups_archive,
    read_sequence,
    read_trec,
)


def _files_source(
    name: str, address: str, files: Mapping[str, str], read: Callable[[Path], Texts]
) -> Source[Texts]:
    """Return a source for a set whose files can be downloaded one by one from an address.

    Args:
        files: their names, and the sha256 of what was published.
    """

    def local(folder: Path) -> Texts | None:
        return read(folder) if (folder / next(iter(files))).exists() else None

    def download(raw: Path) -> Texts:
        for file, sha256 in files.items():
            fetch(f"{address}/{file}", raw / name / file, sha256)
        return read(raw / name)

    return Source(local, download)


def _newsgroups_local(folder: Path) -> Texts | None:
    return read_newsgroups(folder) if (folder / "train.jsonl.gz").exists() else None


def _newsgroups_download(raw: Path) -> Texts:
    """Read the archive itself: scikit-learn keeps a pickle of it, which would be run as it is."""
    content = fetch(
        "https://ndownloader.figshare.com/files/5975967",
        raw / "20news-bydate.tar.gz",
        "8f1b2514ca22a5ade8fbb9cfa5727df95fa587f4c87b786e15c759fa66d95610",
    )
    return read_newsgroups_archive(content)


def _sequence_source(name: str, sets: Sequence[str], *beside: str) -> Source[Texts]:
    """Return a source for data sets that are learned one after the other.

    Args:
        beside: other folders of the data folder where some of them may lie.
    """

    def local(folder: Path) -> Texts | None:
        if not folder.is_dir():
            return None
        folders = [folder, *(folder.with_name(other) for other in beside)]
        # The first folder takes precedence: of equal keys the last one counts.
        found = {s: f for s in sets for f in reversed(folders) if _is_complete(f, s)}
        if absent := [s for s in sets if s not in found]:
            raise DataError(f"data set {name!r} lacks {', '.join(absent)}; put {files} {folder}")
        return read_sequence(found)

    def download(raw: Path) -> Texts:
        raise DataError(
            f"data set {name!r} is at no public address; for each of {', '.join(sets)} put "
            f"{files} {raw.with_name(name)}"
        )

    files = (
        "SET.train.jsonl.gz and SET.test.jsonl.gz, lines of {text, label}, "
        "and a meta.json, {SET: {labels}}, into"
    )
    return Source(local, download)


def _is_complete(folder: Path, name: str) -> bool:
    files = (f"{name}.train.jsonl.gz", f"{name}.test.jsonl.gz", "meta.json")
    return all((folder / file).exists() for file in files)


CL5 = ("yelp", "agnews", "dbpedia", "amazon", "yahoo")
CL15 = (
    *("mnli", "cb", "wic", "copa", "qqp", "boolq", "rte", "imdb"),
    *("yelp", "amazon", "sst2", "dbpedia", "agnews", "multirc", "yahoo"),
)

TEXT_SOURCES: dict[str, Source[Texts]] = {
    "clinc150": _files_source(
        "clinc150",
        "https://raw.githubusercontent.com/clinc/oos-eval/828f8093932c8fe6ca7936c3d2e52903b1c523de"
        "/data",
        {
            "data_full.json": "36923c3705a59e08fe9c3883d8bc2dd966ef93e22cb78ac41171782a698d56e0",
            "domains.json": "b947b579d3b8e74b06f93b01083d8efaff2888b43a3e362533bd88a6e1211b3a",
        },
        read_clinc,
    ),
    "banking77": _files_source(
        "banking77",
        "https://raw.githubusercontent.com/PolyAI-LDN/task-specific-datasets/"
        "57ec275d8078af65b7731c2a98be812d844a6d6b/banking_data",
        {
            "train.csv": "b06e26ac675513959a63135f11b94ea7786ed02da65db93a5650d8838cbc664b",
            "test.csv": "d12d6e3bc4c3103966ae786dc435913c0c563dfa328f5a3646d0e62cfeeb474d",
            "categories.json": "53261da888122daf2d120d925458631d9619e15d82e56052e7a42e535ce32b63",
        },
        read_banking,
    ),
    "trec": _files_source(
        "trec",
        "https://cogcomp.seas.upenn.edu/Data/QA/QC",
        {
            "train_5500.label": "9e4c8bdcaffb96ed61041bd64b564183d52793a8e91d84fc3a8646885f466ec3",
            "TREC_10.label": "033f22c028c2bbba9ca682f68ffe204dc1aa6e1cf35dd6207f2d4ca67f0d0e8e",
        },
        read_trec,
    ),
    "newsgroups20": Source(_newsgroups_local, _newsgroups_download),
    "text-cl5": _sequence_source("text-cl5", CL5),
    "text-cl15": _sequence_source("text-cl15", CL15, "text-cl5", "text_cl5"),
}
