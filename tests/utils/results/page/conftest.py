"""What the tests of the page share."""

import pytest

from utils.results.page import build


@pytest.fixture
def no_charts(monkeypatch):
    """Leave out the charts, which take most of the time of a page."""
    monkeypatch.setattr(build, "spread_charts", lambda *_: [])
