"""One deployment for all tests of SuperNodes that do not need one of their own."""

from collections.abc import Iterator

import pytest

from tests.outage import Federation, four_hospitals


@pytest.fixture(scope="package")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """Four SuperNodes with their own files and keys, whose operators pinned each other's."""
    with four_hospitals(tmp_path_factory.mktemp("hospitals")) as federation:
        yield federation
