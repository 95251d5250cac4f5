"""Tables in files: CSV, TSV, JSON lines and Parquet."""

from __future__ import annotations

import gzip
import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from cl_platform.errors import DataError, one_line

if TYPE_CHECKING:
    import pandas as pd

SEPARATORS = {".csv": ",", ".tsv": "\t"}
LINES = (".jsonl", ".ndjson")
PARQUET = (".parquet",)
ENDINGS = (*SEPARATORS, *LINES, *PARQUET)


def ending(path: str | Path) -> str:
    """Return the ending of a file's name in lower case, without that of a packed file."""
    return Path(str(path).lower().removesuffix(".gz")).suffix


def read_frame(path: Path, separator: str | None, encoding: str) -> pd.DataFrame:
    """Read one file, every value as it is written: text in CSV and TSV, else with its type.

    Raises:
        DataError: it is absent, damaged, in another encoding, or of another kind.
    """
    kind = ending(path)
    if kind not in ENDINGS:
        raise DataError(f"{path} is no table: give one that ends in {', '.join(ENDINGS)}")
    try:
        if kind in LINES:
            frame = _lines(path, encoding)
        elif kind in PARQUET:
            frame = _parquet(path)
        else:
            frame = _delimited(path, separator or SEPARATORS[kind], encoding)
    except UnicodeError as error:
        raise DataError(
            f"{path} is not in {encoding} ({one_line(error, 120)}); "
            "give its encoding, such as stream.encoding=latin-1"
        ) from error
    except DataError:
        raise
    except ImportError as error:
        raise DataError(f"{path} needs {error.name}; install the extra 'report'") from error
    except Exception as error:  # each parser has errors of its own
        raise DataError(f"{path} cannot be read: {one_line(error, 200)}") from error
    if not len(frame):
        raise DataError(f"{path} has no rows; give a file with a row for each sample")
    return frame.rename(columns=str)


def _delimited(path: Path, separator: str, encoding: str) -> pd.DataFrame:
    import pandas as pd

    with warnings.catch_warnings():  # a row with too many fields would be cut
        warnings.simplefilter("error", pd.errors.ParserWarning)
        return pd.read_csv(
            path,
            sep=separator,
            dtype=str,
            keep_default_na=False,  # "NA" and "None" are names as well
            encoding="utf-8-sig" if encoding.lower() in ("utf-8", "utf8") else encoding,
            index_col=False,
        )


def _lines(path: Path, encoding: str) -> pd.DataFrame:
    import pandas as pd

    packed = path.suffix.lower() == ".gz"
    with gzip.open(path, "rb") if packed else path.open("rb") as file:
        text = file.read().decode(encoding).removeprefix("\ufeff")
    rows = []
    for number, line in enumerate(text.split("\n"), 1):  # other separators may be in strings
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}, line {number}: {one_line(error, 120)}") from error
        if not isinstance(row, dict):
            raise DataError(f"{path}, line {number}: expected an object, {{...}}, a line")
        rows.append(row)
    return pd.DataFrame(rows, dtype=object)


def _parquet(path: Path) -> pd.DataFrame:
    import pandas as pd

    return pd.read_parquet(path, dtype_backend="pyarrow")  # integers stay so beside missing ones
