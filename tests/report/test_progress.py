from __future__ import annotations

import io

from movepages.placement import Progress
from movepages.report.progress import ProgressBar, described

GIB = 1 << 30


class Terminal(io.StringIO):
    def isatty(self):
        """Be a terminal."""
        return True


def at(share, seconds=2.0, *, moved=1.0):
    """Return the progress of a move of 1 GiB after some seconds; of what was tried, some moved."""
    done = int(GIB * share)
    return Progress(done >> 12, GIB >> 12, done, GIB, int(done * moved), seconds)


def test_a_line_says_how_far_it_is_and_how_long_it_will_take():
    """Half a gigabyte in two seconds is 256M a second, and the rest takes two more."""
    assert described(at(0.5)) == (
        "[##########..........] 50%  131,072 of 262,144 pages  256M/s  0:02 left"
    )


def test_the_rate_is_of_what_moved():
    """Pages that stay are done with as well, but no rate is made of them, as migspeed does."""
    assert described(at(0.5, moved=0.25)).endswith(
        " 50%  131,072 of 262,144 pages  64M/s  0:02 left"
    )
    assert described(at(0.5, moved=0)).endswith(" 50%  131,072 of 262,144 pages  0/s  0:02 left")


def test_the_first_and_the_last_moment():
    """Nothing done has no rate, nothing to do is all done, and an hour is sixty minutes."""
    assert described(at(0.0, 0.0)).endswith("0/s  0:00 left")
    assert described(Progress(0, 0, 0, 0, 0, 1.0)).startswith("[####################] 100%")
    assert described(at(0.001, 3.6)).endswith("59:56 left")


def test_a_terminal_sees_it_ten_times_a_second_at_most():
    """Calls come faster than anybody reads; the line is written over, and cleared at the end."""
    stream = Terminal()
    with ProgressBar(stream) as bar:
        for tenths in range(30):
            bar.show(at(tenths / 30, tenths / 40))
    lines = stream.getvalue().split("\r\x1b[K")
    assert lines[0] == ""
    assert lines[-1] == ""
    assert 6 <= len(lines) - 2 <= 8
    assert all(len(line) < 80 for line in lines)


def test_a_pipe_sees_nothing():
    """Not a byte goes where no person looks on, nor to a terminal where nothing was done."""
    for stream in (io.StringIO(), Terminal()):
        with ProgressBar(stream) as bar:
            if not stream.isatty():
                bar.show(at(0.5))
        assert stream.getvalue() == ""
