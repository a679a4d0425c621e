import multiprocessing
from pathlib import Path

import pytest

from conf.errors import FedproofError
from server_app.evidence.ownership import own_directory, require_writable


def _own(place, answer):
    try:
        own_directory(place)
        answer.put("owned")
    except FedproofError as error:
        answer.put(str(error))


def elsewhere(place):
    """Claim a directory in another process; return what it says."""
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    process = context.Process(target=_own, args=(place, answer))
    process.start()
    said = answer.get(timeout=60)
    process.join()
    return said


def test_a_directory_has_one_owner_until_it_ends(tmp_path):
    place = tmp_path / "run"
    assert elsewhere(place) == "owned"
    # That process has ended, however it did.
    own_directory(place)
    own_directory(place)
    assert "another command runs in" in elsewhere(place)


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    require_writable(tmp_path / "new" / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    for place in (tmp_path / "file" / "run", Path("/proc/fedproof/run")):
        with pytest.raises(FedproofError, match=r"cannot be written .*hydra\.run\.dir"):
            require_writable(place)
    with pytest.raises(FedproofError, match="cannot be written"):
        own_directory(tmp_path / "file" / "run")
