"""The audit log: what is written is read, what is changed shows, and it can be shown."""

import pytest

from conf.errors import FedproofError
from server_app.show_audit import main
from task.audit import ANSWERED, AuditLog, Receipt
from task.hash_chain import DamagedChainError


def receipt(number=1, **more):
    return Receipt(
        time=1.5, message="train", run="r", round=number, decision=ANSWERED, rows={"va": 7}, **more
    )


@pytest.fixture
def audit(tmp_path):
    return AuditLog(tmp_path / "silo" / "audit.jsonl")


def test_what_is_written_is_read(audit):
    for number in range(1, 6):
        audit.write(receipt(number))
    assert audit.receipts() == [receipt(number) for number in range(1, 6)]
    assert audit.path.stat().st_mode & 0o077 == 0


def test_trainings_are_counted(audit):
    for errors in ({}, {"va": "no"}, {}):
        audit.write(receipt(errors=errors))
    assert audit.trained("r", ["va", "else"]) == 2
    assert audit.trained("other", ["va"]) == audit.trained("r", []) == 0


@pytest.mark.parametrize("line", [0, 1, 2])
def test_an_edit_shows(audit, line):
    for number in (1, 2, 3):
        audit.write(receipt(number))
    lines = audit.path.read_bytes().splitlines(keepends=True)
    lines[line] = lines[line].replace(b'"va": 7', b'"va": 6')
    audit.path.write_bytes(b"".join(lines))
    with pytest.raises(DamagedChainError, match=f"line {line + 1} is not what was written"):
        audit.receipts()


@pytest.mark.parametrize("harm", ["cut", "torn", "last", "head", "gone"])
def test_a_damaged_end_stops_writing(audit, harm):
    for number in (1, 2, 3):
        audit.write(receipt(number))
    content = audit.path.read_bytes()
    lines = content.splitlines(keepends=True)
    head = audit.path.with_name(audit.path.name + ".head")
    if harm == "cut":
        audit.path.write_bytes(b"".join(lines[:2]))
    elif harm == "torn":
        audit.path.write_bytes(content[:-3])
    elif harm == "last":
        audit.path.write_bytes(content.replace(b'"round": 3', b'"round": 4'))
    elif harm == "head":
        head.write_text("rubbish")
    else:
        audit.path.unlink()
    with pytest.raises(DamagedChainError):
        audit.write(receipt(4))


def test_a_writer_that_ended_before_the_head(audit):
    audit.write(receipt(1))
    head = audit.path.with_name(audit.path.name + ".head")
    told = head.read_text()
    audit.write(receipt(2))
    head.write_text(told)
    audit.write(receipt(3))
    assert [r.round for r in audit.receipts()] == [1, 2, 3]


def test_the_command(audit, capsys):
    audit.write(receipt(1))
    audit.write(Receipt(time=2.0, message="query", reason="policy, tasks: no"))
    main(["verify", str(audit.path)])
    assert capsys.readouterr().out == "2 messages, 1 refused, chain verified.\n"
    main([str(audit.path)])
    shown = capsys.readouterr().out
    assert "va 7" in shown and "refused" in shown
    with pytest.raises(FedproofError, match="is no audit log"):
        main([str(audit.path) + "x"])
