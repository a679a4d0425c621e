"""What is installed is listed whole, with licences that a founder can live with."""

import json
import re

import pytest

from server_app.deploy import command, supply

KNOWN_UNKNOWN = {"cuda-toolkit"}
"""Names of NVIDIA's own, without metadata of a licence; torch's wheels for GPUs bring it along."""


@pytest.fixture(scope="module")
def parts():
    return supply.components()


@pytest.mark.parametrize(
    ("licence", "kind"),
    [
        ("MIT", "permissive"),
        ("Apache-2.0 AND BSD-3-Clause", "permissive"),
        ("3-Clause BSD License", "permissive"),
        ("MPL-2.0 AND MIT", "weak copyleft"),
        ("GNU Lesser General Public License v3 (LGPLv3)", "weak copyleft"),
        ("GNU General Public License v2 (GPLv2)", "copyleft"),
        ("GPL-3.0-or-later AND MIT", "copyleft"),
        ("AGPL-3.0-only", "copyleft"),
        ("GPL-2.0-only OR MIT", "permissive"),
        ("LicenseRef-NVIDIA-Proprietary", "proprietary"),
        ("", "unknown"),
        ("see the file", "unknown"),
    ],
)
def test_what_licences_ask(licence, kind):
    assert supply.kind_of(licence) == kind


def test_nothing_that_is_needed_is_copyleft_or_unknown(parts):
    kinds = supply.counted(parts)
    assert not kinds["copyleft"]
    assert {part.name for part in kinds["unknown"]} <= KNOWN_UNKNOWN
    assert all(p.name.startswith("nvidia-") for p in kinds["proprietary"])
    assert sum(map(len, kinds.values())) == len(parts) > 60


def test_all_that_is_needed_is_listed(parts):
    names = [part.name for part in parts]
    assert names == sorted(set(names))
    assert {"fedproof", "flwr", "torch", "opacus", "ray", "typing-extensions"} <= set(names)
    # What tests need is no part of it.
    assert not {"pytest", "hypothesis", "mypy", "ruff"} & set(names)
    assert all(need in names for part in parts for need in part.needs)


def test_the_bill_is_one_by_its_format(parts, tmp_path, capsys):
    command.main(["sbom"])
    printed = capsys.readouterr().out
    command.main(["sbom", str(tmp_path / "bom.json")])
    assert (tmp_path / "bom.json").read_text() == printed
    told = json.loads(printed)
    assert (told["bomFormat"], told["specVersion"], told["version"]) == ("CycloneDX", "1.6", 1)
    assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", told["serialNumber"])
    assert told["metadata"]["component"]["name"] == "fedproof"
    refs = [c["bom-ref"] for c in (told["metadata"]["component"], *told["components"])]
    assert len(refs) == len(set(refs)) == len(parts)
    assert sorted(d["ref"] for d in told["dependencies"]) == sorted(refs)
    assert {ref for d in told["dependencies"] for ref in d["dependsOn"]} <= set(refs)


def test_licences_are_listed(capsys):
    command.main(["licences"])
    *lines, last = capsys.readouterr().out.splitlines()
    assert "permissive\ttorch" not in lines[0] and re.match(r"\d+ permissive", last)
    assert sum(int(n) for n in re.findall(r"\d+", last)) == len(lines)
