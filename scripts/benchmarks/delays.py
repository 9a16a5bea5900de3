"""How late the lines of a log come to somebody who follows it."""

from __future__ import annotations

from benchmarks.appender import stamp

NS_PER_MS = 1e6


class Delays:
    """The delays of the lines that have come, which must be all lines, in order, none twice."""

    def __init__(self) -> None:
        self.ms: list[float] = []

    def take(self, content: str, now_ns: int) -> None:
        """Add the lines of one frame."""
        for text in content.splitlines():
            number, moment_ns = stamp(text)
            if number != len(self.ms):
                raise ValueError(f"line {number} came instead of line {len(self.ms)}")
            self.ms.append((now_ns - moment_ns) / NS_PER_MS)
