"""What a report shows of teachers."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import cl_platform as clp
from cl_platform.report.render import write_report
from cl_platform.report.runs import read_runs
from cl_platform.report.teachers import PARTS, path_shares


def test_the_path_of_runs_and_the_page_with_it(tmp_path: Path) -> None:
    fixed = {"name": "teacher:fixed", "share": 0.5}
    runs = [
        clp.run("blobs", "finetune", curriculum=c, model={"hidden": [8]}, out=tmp_path)
        for c in (
            {**fixed, "order": [0, 1, 2, 3, 4]},
            {**fixed, "order": [0, 1, 2, 4, 3]},
            "reverse",
        )
    ]
    shares = path_shares(runs[:2])
    assert shares.shape == (5, PARTS)
    assert np.allclose(shares.sum(0), 1)
    fifth = PARTS // 5
    assert np.allclose(shares[0, :fifth], 1)
    assert np.allclose(shares[3, 3 * fifth :], 0.5)
    assert np.allclose(shares[3, : 3 * fifth], 0)

    page = write_report(read_runs(tmp_path)).read_text()
    assert page.count("What the teachers chose") == 1
    assert "rows by slice" in page
