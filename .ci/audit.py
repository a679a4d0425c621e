"""Ask an advisory service about the locked versions: what it knows fails, unless it was waived.

    python .ci/audit.py [URL]

The service is OSV, or another that speaks its language; the asking is `uv audit`'s. Waivers are in
``pyproject.toml``, under ``tool.uv.audit``, each with its reason. Where no service can be reached
that is said in one line, and nothing fails.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request

OSV = "https://api.osv.dev/"
PATIENCE = 3.0
"""Seconds that a service may take to show that it is there."""


def main(url: str) -> int:
    """Return the exit status: 1 if something is known of what is locked."""
    try:
        require_service(url)
    except (OSError, ValueError) as error:
        reason = str(error) or type(error).__name__
        print(f"audit: nothing was checked, {url} is no advisory service from here ({reason})")
        return 0
    command = [
        os.environ.get("UV", "uv"), "audit", "--frozen", "--service-url", url,
        "--preview-features", "audit-command",
    ]  # fmt: skip
    return subprocess.run(command, check=False).returncode


def require_service(url: str) -> None:
    """Raise unless OSV's interface answers there, to a question about nothing."""
    request = urllib.request.Request(
        f"{url.rstrip('/')}/v1/querybatch", b'{"queries": []}', {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        if not isinstance(json.load(answer), dict):
            raise ValueError("it answers something else")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else OSV))
