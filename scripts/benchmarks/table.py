"""Figures beside those of others, with the aims and what became of them, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.setup import BUILDBOT

# Whose figures stand in the columns.
SERVERS = ("buildapi", "buildbot", "klein", "twisted")
NONE = "-"
# From here on nobody needs the decimals.
MANY = 100
COLUMNS = (
    *("", "buildapi", f"Buildbot {BUILDBOT}", "bare Klein", "bare twisted.web"),
    *("x Buildbot", "% twisted.web", "aim", ""),
)


@dataclass(frozen=True)
class Aim:
    """
    A figure that buildapi should reach: at least ``least``, of its own or as a ratio.

    of: the property of a figure that counts; ``at_most`` turns it round.
    """

    least: float
    of: str

    def __str__(self) -> str:
        """Show it as the table does."""
        return {
            "buildapi": f"≥ {self.least:,.0f}/s",
            "times": f"≥ {self.least:.0f} x",
            "share": f"≥ {self.least:.0f} %",
            "at_most": f"≤ {self.least:.0f}",
        }[self.of]

    def reached(self, value: float) -> bool:
        """Whether a figure is that good."""
        return value <= self.least if self.of == "at_most" else value >= self.least


@dataclass(frozen=True)
class Figure:
    """
    One line of the table.

    values: in the order of the servers' columns; a server that has none may be left out at the end.
    lower_is_better: the figure is a time, so the ratio is the other way round.
    """

    title: str
    values: Sequence[float | None]
    aims: tuple[Aim, ...] = ()
    lower_is_better: bool = False

    @property
    def buildapi(self) -> float | None:
        """Our own value."""
        return self.values[0]

    at_most = buildapi

    @property
    def times(self) -> float | None:
        """How many times better than Buildbot's."""
        ours, buildbots = (*self.values, None)[:2]
        return _ratio(buildbots, ours) if self.lower_is_better else _ratio(ours, buildbots)

    @property
    def share(self) -> float | None:
        """Per cent of bare twisted.web's."""
        if self.lower_is_better or len(self.values) < len(SERVERS):
            return None
        ratio = _ratio(self.values[0], self.values[-1])
        return None if ratio is None else ratio * 100

    @property
    def verdict(self) -> str:
        """Whether every aim was reached; nothing, if there is none or it could not be measured."""
        values = [getattr(self, aim.of) for aim in self.aims]
        if not values or None in values:
            return ""
        reached = all(aim.reached(value) for value, aim in zip(values, self.aims, strict=True))
        return "reached" if reached else "missed"

    def cells(self) -> tuple[str, ...]:
        """Show it as a line of the table."""
        return (
            self.title,
            *(_shown(one) for one in (*self.values, None, None, None)[: len(SERVERS)]),
            NONE if self.times is None else f"{self.times:,.1f}",
            NONE if self.share is None else f"{self.share:.0f}",
            ", ".join(map(str, self.aims)),
            self.verdict,
        )


@dataclass(frozen=True)
class Chapter:
    """Figures under one heading."""

    title: str
    figures: Sequence[Figure] = field(default_factory=list)


def drawn(found: Sequence[Chapter]) -> str:
    """Return the chapters as text."""
    lines = [[figure.cells() for figure in chapter.figures] for chapter in found]
    everything = [COLUMNS, *(cells for chapter in lines for cells in chapter)]
    widths = [max(map(len, column)) for column in zip(*everything, strict=True)]
    shown = [_line(COLUMNS, widths), "─" * (sum(widths) + 2 * len(widths))]
    for chapter, cells in zip(found, lines, strict=True):
        shown += [chapter.title, *(_line(one, widths) for one in cells), ""]
    return "\n".join(shown)


def _ratio(one: float | None, other: float | None) -> float | None:
    return one / other if one is not None and other else None


def _shown(value: float | None) -> str:
    if value is None:
        return NONE
    return f"{value:,.0f}" if value >= MANY else f"{value:.2f}"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *numbers, aim, verdict = (
        f"{cell:<{width}}" if place in {0, len(cells) - 2, len(cells) - 1} else f"{cell:>{width}}"
        for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return "  ".join((first, *numbers, aim, verdict)).rstrip()
