"""From the operator's YAML to the frozen settings of `syncd.core.settings`, with every mistake reported at once."""

from syncd.config.problems import ConfigErrors, Problem
from syncd.config.reader import load
from syncd.config.secrets import exposed

__all__ = ["ConfigErrors", "Problem", "exposed", "load"]
