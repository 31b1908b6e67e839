"""The status of single pages: each page for a program, runs of like pages for a person."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from movepages.abi import PAGE_STATUSES, status_name
from movepages.report.fields import address_span, count, fields, json_address

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from movepages.report.output import Output

RUN = fields("span", "pages", "name", "meaning")


@dataclass(frozen=True, slots=True, eq=False)
class PageBatch:
    """Pages and their statuses: address uint64[n], status int32[n].

    `run` says that the pages follow each other, so that a person reads them as runs.
    """

    address: NDArray[np.uint64]
    status: NDArray[np.int32]
    run: bool


@dataclass(frozen=True, slots=True)
class Widened:
    """An address inside a page, or a range with such an end: as given, and what was asked for."""

    asked: str
    span: tuple[int, int]


@dataclass(frozen=True, slots=True)
class PageRun:
    """Pages that follow each other and have the same status."""

    start: int
    end: int
    pages: int
    status: int

    @property
    def span(self) -> tuple[int, ...]:
        """The address of a single page, or start and end of several."""
        return (self.start,) if self.pages == 1 else (self.start, self.end)

    @property
    def name(self) -> str:
        """The status by name: `node 0`, `ENOENT`."""
        return status_name(self.status)

    @property
    def meaning(self) -> str:
        """The status in a phrase."""
        return status_meaning(self.status)


def status_meaning(status: int) -> str:
    """Say in a phrase what the status of a page means."""
    if status >= 0:
        return f"page on node {status}"
    known = PAGE_STATUSES.get(status)
    return known.meaning if known else "no status that a page is known to have"


def write_text(
    batches: Iterable[PageBatch], widened: Sequence[Widened], page_size_bytes: int, output: Output
) -> None:
    """Write runs of pages of equal status, in the order they were asked for."""
    if widened:
        first = widened[0]
        shown = address_span(_short(first.span, page_size_bytes))
        more = f", and so on for {count(len(widened) - 1)} more" if len(widened) > 1 else ""
        output.line(f"Not on page boundaries: {first.asked}; shown is {shown}{more}")
        output.line()
    output.stream_table(RUN, merged(batches, page_size_bytes))


def merged(batches: Iterable[PageBatch], page_size_bytes: int) -> Iterator[PageRun]:
    """Yield the runs of all batches; pages asked for one by one stay apart."""
    last: PageRun | None = None
    for batch in batches:
        for run in _runs(batch, page_size_bytes):
            if last and batch.run and run.start == last.end and run.status == last.status:
                last = PageRun(last.start, run.end, last.pages + run.pages, run.status)
                continue
            if last:
                yield last
            last = run
    if last:
        yield last


def to_json(
    pid: int, page_size_bytes: int, widened: Sequence[Widened], batches: Iterable[PageBatch]
) -> dict[str, Any]:
    """Return every page for a program, encoded as the batches come."""
    return {
        "pid": pid,
        "page_size_bytes": page_size_bytes,
        "unaligned": [
            {
                "asked": each.asked,
                "address": "-".join(map(json_address, _short(each.span, page_size_bytes))),
            }
            for each in widened
        ],
        "pages": _encoded(batches),
    }


def _encoded(batches: Iterable[PageBatch]) -> Iterator[str]:
    """Yield each page encoded. What a status says is encoded once, for millions may share it."""
    from movepages.report.json import encoded

    for batch in batches:
        codes = set(batch.status.tolist())
        said = (
            {"status": code, "name": status_name(code), "meaning": status_meaning(code)}
            for code in codes
        )
        tails = dict(zip(codes, (text[1:] for text in encoded(said)), strict=True))
        for address, status in zip(batch.address.tolist(), batch.status.tolist(), strict=True):
            yield f'{{"address": "{json_address(address)}", {tails[status]}'


def _short(span: tuple[int, int], page_size_bytes: int) -> tuple[int, ...]:
    """Return only the start of a span of one page."""
    return span[:1] if span[1] - span[0] == page_size_bytes else span


def _runs(batch: PageBatch, page_size_bytes: int) -> Iterator[PageRun]:
    import numpy as np

    breaks = np.diff(batch.status) != 0 if batch.run else np.ones(len(batch.status) - 1, np.bool_)
    starts = np.concatenate([[0], np.flatnonzero(breaks) + 1])
    pages = np.diff(starts, append=len(batch.status))
    for start, number, status in zip(
        batch.address[starts].tolist(), pages.tolist(), batch.status[starts].tolist(), strict=True
    ):
        yield PageRun(start, start + number * page_size_bytes, number, status)
