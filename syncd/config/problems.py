"""What is wrong with a configuration, told so that it can be mended in one go."""

from collections.abc import Sequence
from dataclasses import dataclass

Path = tuple[str | int, ...]

_LONGEST_SHOWN = 80


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake. `line` counts from 1, 0 if the file was not read; `path` is dotted (`instances.acme.limits`), empty for the whole."""

    file: str
    line: int
    path: str
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}: " if self.line else f"{self.file}: "
        return f"{place}{self.path}: {self.message}" if self.path else f"{place}{self.message}"


class ConfigErrors(Exception):  # noqa: N818 - it holds several
    """All problems of a configuration, in the order of their lines; as text, one line each. Holds no secret."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))


class Report:
    """Gathers the problems of one file. A mistake that is met twice (through `defaults` or an alias) is told once."""

    def __init__(self, file: str) -> None:
        self._file = one_line(file)
        self._problems: dict[Problem, None] = {}

    def add(self, line: int, path: Path, message: str) -> None:
        self._problems[Problem(self._file, line, dotted(path), one_line(message))] = None

    def raise_if_any(self) -> None:
        """Raises ConfigErrors when something was added."""
        if self._problems:
            raise ConfigErrors(sorted(self._problems, key=lambda problem: problem.line))


def dotted(path: Path) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{shown(part)}" for part in path)
    return text.removeprefix(".")


def shown(text: str) -> str:
    """A value or key as it may stand in a message: short, and visible when empty."""
    if len(text) > _LONGEST_SHOWN:
        text = text[:_LONGEST_SHOWN] + "…"
    return one_line(text) or '""'


def one_line(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
