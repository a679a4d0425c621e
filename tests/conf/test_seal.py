import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conf.errors import FedproofError
from conf.seal import sealed, sealed_line, unsealed, unsealed_line

VALUES = st.dictionaries(
    st.text(max_size=5),
    st.one_of(st.integers(), st.floats(allow_nan=False), st.text(max_size=5), st.none()),
    max_size=4,
)


@given(VALUES, st.data())
@settings(max_examples=200, deadline=None)
def test_a_flipped_bit_is_refused_or_without_effect(values, data):
    values = {key: value for key, value in values.items() if key not in ("sha256", "crc32")}
    for text, read in (
        (json.dumps(sealed(values)), lambda text: unsealed(json.loads(text), "x.json")),
        (sealed_line(values), unsealed_line),
    ):
        assert read(text) == values
        content = bytearray(text.encode())
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] ^= 1 << data.draw(st.integers(0, 7))
        try:
            found = read(content.decode())
        except (ValueError, FedproofError):
            continue
        except (AttributeError, TypeError):
            # No object any more, which readers refuse before.
            continue
        # A mark that is called something else is no mark, and the rest is as it was.
        assert values.items() <= found.items()


def test_files_of_earlier_versions_are_read():
    assert unsealed({"a": 1}, "x.json") == {"a": 1}
    assert unsealed_line('{"a": 1}') == {"a": 1}
    with pytest.raises(ValueError, match="7"):
        unsealed_line("[7]")
