"""The results as a table for people, and as JSON for programs."""

from __future__ import annotations

import json
import os
import platform
from typing import TYPE_CHECKING, Any

from harness import Measure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness import LeftOut, Row, Timing

HEADINGS = ("benchmark", "ours", "peer", "value", "bar", "met")
_MET = {True: "met", False: "MISSED", None: ""}
_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (0.0, "ns"))
_WRITTEN = {
    Measure.RATIO: "{:.3f} x",
    Measure.SPEEDUP: "{:.2f} x faster",
    Measure.EXTRA: "{:+.2f} us",
    Measure.OWN: "{:.4g} ms",
    Measure.PER_PAGE: "{:.1f} ns/page",
    Measure.COUNT: "{:.0f}",
}


def duration(seconds: float) -> str:
    """Write a time with three digits and the unit that suits it."""
    scale, unit = next((s, u) for s, u in _UNITS if seconds >= s)
    return f"{seconds / (scale or 1e-9):#.3g}".rstrip(".") + f" {unit}"


def table(rows: Sequence[Row]) -> str:
    """Return the rows as aligned text; times are median and (quartiles)."""
    cells = [HEADINGS, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(HEADINGS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    )


def summary(rows: Sequence[Row], left_out: Sequence[LeftOut]) -> str:
    """Say in a few lines how many bars are met, which are not, and what was left out."""
    barred = [row for row in rows if row.met is not None]
    missed = [row.name for row in barred if not row.met]
    lines = [f"{len(barred) - len(missed)} of {len(barred)} bars met"]
    lines += [f"missed: {name}" for name in missed]
    lines += [f"left out: {each.name}: {each.reason}" for each in left_out]
    return "\n".join(lines)


def as_json(rows: Sequence[Row], left_out: Sequence[LeftOut]) -> str:
    """Return the results as JSON: `machine`, `rows[]`, `left_out[]`. Units are in the names."""
    document = {
        "machine": {
            "architecture": platform.machine(),
            "cpus": os.cpu_count(),
            "kernel": platform.release(),
            "python": platform.python_version(),
        },
        "rows": [_fields(row) for row in rows],
        "left_out": [{"name": each.name, "reason": each.reason} for each in left_out],
    }
    return json.dumps(document, indent=2)


def _cells(row: Row) -> tuple[str, ...]:
    at = ">=" if row.measure is Measure.SPEEDUP else "<="
    return (
        row.name,
        str(row.ours) if isinstance(row.ours, int) else _spread(row.ours),
        "" if row.peer is None else f"{_spread(row.peer)} {row.peer_name}",
        _WRITTEN[row.measure].format(row.value),
        "" if row.bar is None else f"{at} {_WRITTEN[row.measure].format(row.bar)}",
        _MET[row.met],
    )


def _spread(timing: Timing) -> str:
    low, high = duration(timing.lower_quartile_s), duration(timing.upper_quartile_s)
    return f"{duration(timing.median_s)} ({low} - {high})"


def _fields(row: Row) -> dict[str, Any]:
    fields: dict[str, Any] = {"name": row.name}
    if not isinstance(row.ours, int):
        fields |= _times("ours", row.ours)
    if row.measure is Measure.PER_PAGE:
        fields["pages"] = row.pages
    if row.peer is not None:
        fields |= {"peer": row.peer_name, **_times("peer", row.peer)}
    return fields | {
        "measure": row.measure.value,
        "value": row.value,
        "bar": row.bar,
        "met": row.met,
    }


def _times(whose: str, timing: Timing) -> dict[str, float]:
    return {
        f"{whose}_median_s": timing.median_s,
        f"{whose}_lower_quartile_s": timing.lower_quartile_s,
        f"{whose}_upper_quartile_s": timing.upper_quartile_s,
        f"{whose}_samples": timing.samples,
    }
