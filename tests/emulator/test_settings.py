"""What root may set on the emulated machine: which files there are, and what comes of a text."""

from __future__ import annotations

import pytest

from movepages.abi import Mode
from movepages.abi.limits import ULONG_MAX
from movepages.emulator.settings import settings_of

pytestmark = pytest.mark.emulator

WEIGHT = "/sys/kernel/mm/mempolicy/weighted_interleave/node%d"
SIZE = "/sys/devices/system/node/node%d/hugepages/hugepages-2048kB/nr_hugepages"
ROUNDS = 10


@pytest.fixture
def settings(live):
    """The attributes of a machine of four nodes, by path."""
    return dict(settings_of(live.machine))


def test_each_node_has_a_weight_and_three_files_for_each_size(settings, live):
    """Of these root may set the weight, and the size of a pool."""
    sizes = len(list(live.machine.pools))
    assert len(settings) == 4 + 4 * 3 * sizes
    stored = {name for name, attribute in settings.items() if attribute.store is not None}
    assert {name.rpartition("/")[2] for name in stored} == {
        *("nr_hugepages", "node0", "node1", "node2", "node3")
    }
    assert {WEIGHT % 3, SIZE % 0} <= stored


@pytest.mark.parametrize(
    ("line", "weight"),
    [
        *[("1", 1), ("255", 255), ("007", 7)],
        *[("0", 1), ("", 1)],
        *[("256", 9), ("-1", 9), ("1.5", 9), ("x", 9), ("\u0663", 9), ("1" * 5000, 9)],
    ],
)
def test_weight_is_a_number_of_a_byte(settings, line, weight):
    """1 to 255 is set, 0 and nothing are the default again, and all else leaves it as it is."""
    attribute = settings[WEIGHT % 2]
    attribute.store("9")
    attribute.store(line)
    assert (attribute.show(), settings[WEIGHT % 1].show()) == (weight, 1)


@pytest.mark.parametrize(
    ("line", "total"),
    [
        *[("0", 0), ("3", 3), ("0" * 5000 + "3", 3), (str(ULONG_MAX), 512)],
        *[("", 2), ("-1", 2), ("0x4", 2), ("many", 2), (str(ULONG_MAX + 1), 2)],
    ],
)
def test_size_is_a_number(settings, line, total):
    """It grows to what a node of 1 GiB has; what is none, or too large, leaves it as it is."""
    attribute = settings[SIZE % 1]
    attribute.store("2")
    attribute.store(line)
    assert (attribute.show(), settings[SIZE % 0].show()) == (total, 0)


def test_pages_are_interleaved_by_the_weights_that_held_when_they_were_touched(live, tmp_path):
    """Pages touched before root sets a weight are where the old ones put them, unasked or not."""
    process = live.world.process()
    count = 6 * ROUNDS
    before, after = process.mmap(count), process.mmap(count)
    for start in (before, after):
        assert live.mbind(process.pid, start, count, Mode.WEIGHTED_INTERLEAVE, [0, 2]) == 0
    process.write(before, count)
    file = tmp_path / "node2"
    file.touch()
    live.machine.attributes.open_to_write(WEIGHT % 2, file)
    file.write_text("5\n", encoding="ascii")
    process.write(after, count)
    nodes = [live.where(process.pid, start, count) for start in (before, after)]
    assert nodes[0] == [nodes[0][0], 2 - nodes[0][0]] * (3 * ROUNDS)
    assert [nodes[1].count(node) for node in (0, 2)] == [ROUNDS, 5 * ROUNDS]
