"""However a run ends, its directory says how, and holds a report."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from conf.errors import FedproofError
from server_app.evidence import files

FINISHED, FAILED, INTERRUPTED, CRASHED = "finished", "failed", "interrupted", "crashed"


@contextmanager
def reported(run_dir: Path) -> Iterator[None]:
    """Write ``outcome.json`` and ``report.html`` after the block, whatever happened in it."""
    ended, sentence = FINISHED, ""
    try:
        yield
    except FedproofError as error:
        ended, sentence = FAILED, str(error)
        raise
    except KeyboardInterrupt:
        ended = INTERRUPTED
        raise
    except BaseException as error:
        ended, sentence = CRASHED, type(error).__name__
        raise
    finally:
        _write(run_dir, ended, sentence)


def _write(run_dir: Path, ended: str, sentence: str) -> None:
    """Write both files; that a report fails must not hide how the run ended."""
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        files.write_json(run_dir / files.OUTCOME, {"ended": ended, "sentence": sentence})
        # Matplotlib is imported when the run is over.
        from server_app.report.page import write_report

        print(f"report: {write_report(run_dir)}", flush=True)
    except Exception as error:
        print(
            f"fedproof: there is no report ({type(error).__name__}: {error}): "
            f"fedproof report {run_dir}",
            file=sys.stderr,
        )
