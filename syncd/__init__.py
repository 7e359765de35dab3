"""syncd keeps a PostgreSQL database and an Adobe Marketo Engage instance in step, both ways."""

from importlib.metadata import version

__version__ = version("syncd")
