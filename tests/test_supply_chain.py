"""Nothing runs what came as data, and what is installed is pinned, hashed and from one place."""

from __future__ import annotations

import ast
import http.server
import json
import re
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
FILES = [
    path
    for package in ("conf", "task", "client_app", "server_app")
    for path in sorted((ROOT / package).rglob("*.py"))
]
MODULES = {"pickle", "_pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
BUILTINS = {"eval", "exec", "compile", "__import__"}
BETWEEN_OWN_PROCESSES = {
    # Workers of a simulation and the process that forked them, over a pipe that nobody else has.
    "server_app/engines/shared.py": {"pickle"},
}


def dangers(text: str) -> Iterator[str]:
    """Yield what in a module's source may run code that came as data."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        else:
            names = []
        yield from (name for name in names if name.split(".")[0] in MODULES)
        if isinstance(node, ast.Call):
            yield from _call(node)


def _call(node: ast.Call) -> Iterator[str]:
    keywords = {k.arg: getattr(k.value, "value", "?") for k in node.keywords}
    if isinstance(node.func, ast.Name) and node.func.id in BUILTINS:
        yield node.func.id
    for name in ("allow_pickle", "shell"):
        if keywords.get(name, False) is not False:
            yield name
    if not isinstance(node.func, ast.Attribute) or not isinstance(node.func.value, ast.Name):
        return
    call = f"{node.func.value.id}.{node.func.attr}"
    if call == "torch.load" and keywords.get("weights_only") is not True:
        yield call
    if call in ("yaml.load", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "os.system"):
        yield call
    if node.func.attr in ("read_pickle", "instantiate"):
        yield call


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_data_is_run(path: Path) -> None:
    allowed = BETWEEN_OWN_PROCESSES.get(path.relative_to(ROOT).as_posix(), set())
    assert set(dangers(path.read_text(encoding="utf-8"))) <= allowed


@pytest.mark.parametrize(
    "line",
    [
        "import pickle", "from pickle import loads", "import marshal as m", "import joblib",
        "eval('1')", "exec(x)", "compile(x, '', 'exec')", "__import__(x)", "torch.load(x)",
        "torch.load(x, weights_only=False)", "torch.load(x, weights_only=y)", "yaml.load(x, L)",
        "np.load(x, allow_pickle=True)", "np.load(x, allow_pickle=y)", "run(x, shell=True)",
        "os.system(x)", "pandas.read_pickle(x)", "utils.instantiate(x)",
    ],
)  # fmt: skip
def test_what_would_be_found(line: str) -> None:
    assert list(dangers(line))


def test_what_is_no_danger() -> None:
    text = "model.eval(); torch.load(x, weights_only=True); yaml.safe_load(x); re.compile(x)"
    assert not list(dangers(f"{text}; np.load(x, allow_pickle=False)"))


@pytest.fixture(scope="module")
def lock() -> list[dict]:
    return tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))["package"]


def test_all_comes_from_one_public_place(lock: list[dict]) -> None:
    """An address that only one machine knows would make the lock useless on all others."""
    for package in lock:
        if package["name"] == "fedproof":
            assert package["source"] == {"editable": "."}
            continue
        assert package["source"] == {"registry": "https://pypi.org/simple"}, package["name"]
        files = [*package.get("wheels", []), *filter(None, [package.get("sdist")])]
        assert files, package["name"]
        for file in files:
            assert urlsplit(file["url"]).netloc == "files.pythonhosted.org"
            algorithm, _, digest = file["hash"].partition(":")
            assert algorithm == "sha256" and len(digest) == 64


def test_the_lock_is_that_of_the_project(lock: list[dict]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    groups = [
        project["project"]["dependencies"],
        *project["project"]["optional-dependencies"].values(),
        *project["dependency-groups"].values(),
    ]
    versions: dict[str, set[str]] = {}
    for package in lock:
        versions.setdefault(package["name"], set()).add(package["version"])
    for requirement in (Requirement(line) for group in groups for line in group):
        found = versions.get(canonicalize_name(requirement.name), set())
        assert any(requirement.specifier.contains(v, prereleases=True) for v in found), (
            f"{requirement}: uv lock"
        )


WAIVER = re.compile(r'^\s*"[\w-]+",\s+# \w.{20,}$')


class Advisories(http.server.BaseHTTPRequestHandler):
    """What OSV says, were there an advisory about the one package that is ``hit``."""

    hit = "no package"

    def do_POST(self) -> None:
        """Name what is known of each package."""
        told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        known = {"vulns": [{"id": "GHSA-hole", "modified": "2024-01-01T00:00:00Z"}]}
        names = [query["package"]["name"] for query in told["queries"]]
        self._answer({"results": [known if name == self.hit else {} for name in names]})

    def do_GET(self) -> None:
        """Tell all of it."""
        fixed = [{"introduced": "0"}, {"fixed": "99"}]
        package = {"ecosystem": "PyPI", "name": self.hit}
        when = dict.fromkeys(("published", "modified"), "2024-01-01T00:00:00Z")
        affected = [{"package": package, "ranges": [{"type": "ECOSYSTEM", "events": fixed}]}]
        self._answer({"id": "GHSA-hole", "summary": "a hole", "affected": affected, **when})

    def _answer(self, told: Any) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(told).encode())

    def log_message(self, *_: Any) -> None:
        """Keep quiet."""


@pytest.fixture
def service() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Advisories) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def audit(url: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / ".ci" / "audit.py", url]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("hit", "status"), [("flwr", 1), ("no package", 0)])
def test_a_known_hole_fails_the_audit(
    service: str, monkeypatch: pytest.MonkeyPatch, hit: str, status: int
) -> None:
    monkeypatch.setattr(Advisories, "hit", hit)
    done = audit(service)
    assert done.returncode == status, done.stderr
    assert ("flwr" in done.stdout and "GHSA-hole" in done.stdout) is bool(status)


def test_an_audit_without_a_service_says_so_and_does_not_fail() -> None:
    done = audit("http://127.0.0.1:1")
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 1
    assert "nothing was checked, http://127.0.0.1:1" in done.stdout


def test_waivers_have_reasons() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    waived = tomllib.loads(text)["tool"]["uv"]["audit"]["ignore"]
    lines = text.split("ignore = [", 1)[1].split("]", 1)[0].splitlines()[1:]
    assert len(waived) == sum(WAIVER.match(line) is not None for line in lines)
