"""``clp best``: a command that reads results."""

from __future__ import annotations


def best(folder: str, /, *, by: str = "average_accuracy") -> None:
    """Print the best run of a folder.

    Parameters
    ----------
    folder
        The --out of runs, or a sweep's folder.
    by
        A metric.
    """
    import cl_platform as clp  # here, so that `clp --help` stays quick

    frame = clp.load_results(folder)
    row = frame.loc[frame[by].idxmax()]
    print(f"{row['run_id']}  {row['strategy.name']} on {row['stream.name']}: {by} {row[by]:.3f}")
