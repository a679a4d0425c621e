"""The Flower ServerApp: compose the settings, run the rounds.

It imports torch when it runs, and in Flower's simulation only once Ray has started: both are Python
in one process, and Ray's actors, which have more to import, would start seconds later.
"""

from __future__ import annotations

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from server_app.compat import await_ray

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run one federation."""
    await_ray(grid)
    from server_app.run import run_federation

    run_federation(grid, context)
