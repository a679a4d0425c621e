import pytest

from conf.errors import FedproofError
from server_app.privacy import show_ledger
from task.privacy.accounting import Spend, epsilon
from task.privacy.ledger import Entry, Ledger
from task.privacy.row_counts import SPEND, RowCounts
from task.privacy.source_key import source_key
from tests.flower import fedproof


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger(tmp_path / "va.jsonl")
    for number in (1, 2):
        facts = {"run": "abc", "round": number, "rows": 80, "time": 0}
        ledger.spend(Entry("record", Spend(1.0, 0.2, 5), facts), lambda _: None)
    return ledger


def test_entries_and_their_cost_so_far(ledger, capsys):
    show_ledger.main([str(ledger.path)])
    shown = capsys.readouterr().out
    for number in (1, 2):
        assert f"{epsilon([Spend(1.0, 0.2, 5)] * number, 1e-5):.4f}" in shown
    assert "2 entries, chain verified · δ = 1e-05" in shown


def test_a_torn_line_is_shown_and_cut_off(ledger, capsys):
    with ledger.path.open("ab") as file:
        file.write(b"{torn")
    with pytest.raises(FedproofError, match="--repair"):
        show_ledger.main([str(ledger.path)])
    show_ledger.main([str(ledger.path), "--repair"])
    assert "5 bytes of a torn line were cut off" in capsys.readouterr().out


def test_a_head_that_others_keep(ledger, capsys):
    with pytest.raises(FedproofError, match="a head is a hash under that key"):
        show_ledger.main([str(ledger.path), "--expect", "1:" + "0" * 64])
    secret = source_key(ledger.path.parent, missed=False)
    head = ledger.head().sealed(secret)
    show_ledger.main([str(ledger.path), "--expect", str(head)])
    assert f"head {head}" in capsys.readouterr().out
    with pytest.raises(FedproofError, match="entry 3 that --expect knows"):
        show_ledger.main([str(ledger.path), "--expect", f"3:{head.digest}"])
    with pytest.raises(FedproofError, match="is no head"):
        show_ledger.main([str(ledger.path), "--expect", "new"])


def test_whose_rows_and_which_counts(tmp_path, capsys):
    source = Ledger(tmp_path / "source.jsonl")
    for client in ("north", "south"):
        source.spend(Entry("record", SPEND, RowCounts(61, 20).facts, "p", client), lambda _: None)
    show_ledger.main([str(source.path)])
    shown = capsys.readouterr().out
    assert "north" in shown and "61" in shown
    # Disjoint rows: the second costs nothing more.
    assert shown.count(f"{epsilon([SPEND], 1e-5):.4f}") == 2


def test_bad_input(ledger, tmp_path):
    with pytest.raises(FedproofError, match="is no ledger"):
        show_ledger.main([str(tmp_path / "none")])
    with pytest.raises(FedproofError, match="--delta=2 must lie"):
        show_ledger.main([str(ledger.path), "--delta=2"])


def test_the_command_refuses_an_edited_ledger(ledger):
    ledger.path.write_bytes(ledger.path.read_bytes().replace(b'"sigma": 1.0', b'"sigma": 5.0'))
    done = fedproof("ledger", str(ledger.path))
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "fedproof: the privacy ledger was edited (line 1 is not what was written)" in done.stderr
