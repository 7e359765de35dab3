"""What the tests with a real systemd, Chromium and Prometheus share."""

from tests.flows.conftest import house

__all__ = ["house"]
