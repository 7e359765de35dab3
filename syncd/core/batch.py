"""How many leads to ask for per call: more while replies are quick, fewer after one that was too much for Marketo."""

from dataclasses import dataclass, replace
from datetime import timedelta

LARGEST = 1000  # protocol 1.3: Marketo returns no more
SMALLEST = 10
QUICK = timedelta(seconds=2)
QUICK_IN_A_ROW = 5


@dataclass(frozen=True, slots=True)
class BatchSize:
    """`size` leads are asked for; the methods give what follows from a reply."""

    size: int
    quick: int = 0

    def answered(self, asked: int, came: int, took: timedelta) -> "BatchSize":
        """After a page of `came` leads for `asked`. Only full pages tell that more could be asked for (trust what came back)."""
        if asked < self.size:
            return self
        if came < asked or took > QUICK:
            return replace(self, quick=0)
        if self.quick + 1 < QUICK_IN_A_ROW:
            return replace(self, quick=self.quick + 1)
        return BatchSize(min(LARGEST, self.size + max(1, self.size // 4)))

    def failed(self, asked: int) -> "BatchSize":
        """After a time-out or an internal error. Several calls of one size that fail together halve it once."""
        return BatchSize(max(min(SMALLEST, self.size), min(self.size, asked // 2)))
