"""What tests/emulator/programs/objects.py must say, on emulated nodes and on real ones.

    objects_said.py PROGRAM DIRECTORY

Runs that program, and ends with exit code 0 where it says just that.
"""

from __future__ import annotations

import json
import subprocess
import sys

PAGES = 32
KIB = 1024
ALL, HALF = PAGES * 4 * KIB, PAGES * 2 * KIB


def check(steps):
    """Check each step: a file that is only cached, one that is mapped, and segments in use."""
    # A file that nobody has mapped: first seen under the interleaving policy of the program.
    (file,) = steps["file before"]["said"]["files"]
    assert file["bytes_by_node"] == {"0": HALF, "2": HALF}
    planned = steps["dry run"]["said"]["plan"]
    assert [(row["from_node"], row["to_node"], row["pages"]) for row in planned] == [
        (0, 1, PAGES // 2),
        (2, 1, PAGES // 2),
    ]
    file, sparse = steps["file"]["said"]["files"]
    assert (file["moved"], file["failed"], file["verified"]) == (PAGES, {}, True)
    assert file["bytes_by_node"] == {"0": HALF, "2": HALF}
    assert file["bytes_by_node_after"] == {"1": ALL}
    assert (sparse["resident_bytes"], sparse["asked"], steps["holes"]) == (0, 0, 0)
    (file,) = steps["file by turns"]["said"]["files"]
    assert (file["already_there"], file["moved"]) == (PAGES // 2, PAGES // 2)
    assert file["bytes_by_node_after"] == {"1": HALF, "3": HALF}
    assert steps["file same"]
    assert [steps[name]["code"] for name in ("file", "file by turns", "dry run")] == [0, 0, 0]

    # Mapped by the program: only with --shared, and it finds its pages on their new node.
    assert steps["mapped"]["code"] == 1
    assert steps["mapped"]["said"]["failed"] == {"EACCES": PAGES}
    assert steps["mapped, shared"]["said"]["moved"] == PAGES
    assert steps["mapped, now"] == {"0": PAGES}
    assert steps["mapped, same"]

    # Segments that the program has attached and mapped; half of the second was never touched.
    before = steps["shm before"]["said"]["segments"]
    assert [segment["bytes_by_node"] for segment in before] == [{"0": HALF, "2": HALF}, {"2": ALL}]
    assert [segment["policy"] for segment in before] == ["default", "bind:2"]
    assert [segment["attached"] for segment in before] == [1, None]
    assert [segment["size_bytes"] for segment in before] == [ALL, 2 * ALL]
    moved = steps["shm"]["said"]["segments"]
    assert [segment["moved"] for segment in moved] == [PAGES, PAGES]
    assert [segment["bytes_by_node_after"] for segment in moved] == [{"3": ALL}, {"3": ALL}]
    assert steps["shm now"] == [{"3": PAGES}, {"3": PAGES}]
    assert steps["shm same"]
    assert {step["err"] for step in steps.values() if isinstance(step, dict) and "err" in step} == {
        ""
    }


def main(program, directory):
    """Run the program and check what it says."""
    command = (sys.executable, program, directory)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    check(json.loads(done.stdout))


if __name__ == "__main__":
    main(*sys.argv[1:])
