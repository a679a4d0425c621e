import json

from server_app.evidence.events import PREFIX, announce, parse, watched, watching


def test_watchers_in_this_process(capsys):
    seen = []
    with watching(seen.append):
        assert watched()
        announce({"event": "round", "round": 1}, log_lines=True)
    announce({"event": "round", "round": 2}, log_lines=False)
    assert seen == [{"event": "round", "round": 1}] and not watched()
    assert capsys.readouterr().out == ""


def test_log_lines_for_other_processes(capsys):
    event = {"event": "summary", "text": "naïve\n· done"}
    announce(event, log_lines=True)
    line = capsys.readouterr().out
    assert line.count("\n") == 1
    assert parse(line.rstrip()) == event


def test_what_a_line_quotes_is_no_event():
    forged = PREFIX + json.dumps({"event": "file", "name": "model.safetensors", "data": ""})
    assert parse(f"WARNING: node 7 takes no part: {forged}") is None


def test_other_lines_are_no_events():
    for line in ("hello", PREFIX + "{", PREFIX + "[]", PREFIX + json.dumps({"round": 1})):
        assert parse(line) is None
