from __future__ import annotations

import io

from movepages.nodeset import NodeSet
from movepages.placement.objects import Sums
from movepages.report.objects import ObjectFacts, ObjectsSnapshot, to_json, write_text
from movepages.report.output import Output

PAGE = 4096
SECRET = ObjectFacts(
    "sysv:7", 8 * PAGE, unlocated_bytes=4 * PAGE, owner="root", attached=2, remark="not permitted"
)


def written(snapshot, kind="segments"):
    """Return the report as text."""
    stream = io.StringIO()
    write_text(snapshot, kind, Output(stream))
    return stream.getvalue()


def test_no_segments():
    """It is said that there are none."""
    nothing = ObjectsSnapshot((), NodeSet(), dry_run=True)
    assert written(nothing) == "There are no segments of shared memory.\n"
    assert to_json(nothing, "segments")["segments"] == []


def test_a_segment_that_may_not_be_looked_at():
    """What the kernel says of its size is shown, and why its nodes are not."""
    looked = ObjectsSnapshot((SECRET,), NodeSet(), dry_run=True)
    assert written(looked).splitlines()[1] == (
        "sysv:7    32K       16K  -              root       2  not permitted"
    )
    (segment,) = to_json(looked, "segments")["segments"]
    assert (segment["resident_bytes"], segment["policy"]) == (4 * PAGE, None)
    assert (segment["bytes_by_node"], segment["remark"]) == ({}, "not permitted")


def test_names_are_made_harmless():
    """A control character in a name does not reach the terminal."""
    named = ObjectsSnapshot((ObjectFacts("a\x1b[31mb", PAGE),), NodeSet(), dry_run=True)
    assert "\x1b" not in written(named, "files")


def test_what_was_not_come_to():
    """After an interrupt, files behind it say that nothing was tried."""
    begun = ObjectFacts("one", PAGE, {0: PAGE}, after={0: PAGE}, sums=Sums(ended="interrupted"))
    behind = ObjectFacts("two", PAGE)
    text = written(ObjectsSnapshot((begun, behind), NodeSet([1]), dry_run=False), "files")
    assert text.endswith(
        "two: to node 1\nNothing of 4K is in memory\n\nNothing was tried: the work ended before.\n"
    )
    one, two = to_json(ObjectsSnapshot((begun, behind), NodeSet([1]), dry_run=False), "files")[
        "files"
    ]
    assert (one["ended"], two["ended"]) == ("interrupted", "not begun")


def test_a_file_that_is_in_no_memory():
    """Without pages there is no table of nodes, and nothing was asked for."""
    file = ObjectFacts("cold", 4 * PAGE, sums=Sums(), after={})
    text = written(ObjectsSnapshot((file,), NodeSet([0, 2]), dry_run=False), "files")
    assert text == (
        "cold: to nodes 0,2\nNothing of 16K is in memory\n\n"
        "OUTCOME        PAGES\nasked              0\nmoved              0\nalready there      0\n"
    )
