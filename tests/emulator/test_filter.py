from __future__ import annotations

import platform
from itertools import pairwise

import pytest

from movepages.abi import CALLS, SYSCALL_NUMBERS, seccomp as abi
from movepages.abi.task_calls import TASK_CALL_NUMBERS
from movepages.emulator.filter import Files, Precision, build_filter, call_numbers
from movepages.errors import UnsupportedError
from movepages.linux.seccomp import Condition, Filter, Rule, Test

MACHINES = sorted(abi.AUDIT_ARCH)
MAP_CHANGES = ("mmap", "munmap", "mremap", "brk", "shmdt")
"""Without madvise, of which only some advice counts."""
X32 = 0x40000000
AUDIT_ARCH_I386 = 0x40000003
O_RDONLY, O_WRONLY, O_RDWR, O_CREAT, O_TRUNC, O_APPEND = 0, 1, 2, 0o100, 0o1000, 0o2000
O_CLOEXEC = 0o2000000


def interpret(program: bytes, nr: int, args=(), arch=None, machine="x86_64") -> str:
    """Run a classic BPF program on a system call, as the kernel would; no jump goes backwards."""
    arch = abi.AUDIT_ARCH[machine] if arch is None else arch
    args = (*args, *[0] * (6 - len(args)))
    data = nr.to_bytes(4, "little") + arch.to_bytes(4, "little") + bytes(8)
    data += b"".join(arg.to_bytes(8, "little") for arg in args)
    code = list(abi.SOCK_FILTER.iter_unpack(program))
    at = accumulator = 0
    while True:
        instruction, if_true, if_false, k = code[at]
        at += 1
        match instruction:
            case 0x20:
                accumulator = int.from_bytes(data[k : k + 4], "little")
            case 0x15:
                at += if_true if accumulator == k else if_false
            case 0x35:
                at += if_true if accumulator >= k else if_false
            case 0x45:
                at += if_true if accumulator & k else if_false
            case 0x06:
                return {0x7FFF0000: "allow", 0x7FC00000: "notify"}[k]
            case _:
                raise AssertionError(f"no such instruction: {instruction:#x}")


def program(machine="x86_64", precision=Precision.EXACT, files=Files.ALL, also=()):
    """Return the program of the emulator's filter."""
    return build_filter(machine, precision, files, also).program


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("call", [*CALLS, "getcpu"])
@pytest.mark.parametrize("precision", Precision)
def test_served_calls_are_always_notified(machine, call, precision):
    """The NUMA calls and getcpu are notified on every machine in every precision."""
    code = program(machine, precision, Files.NONE)
    assert interpret(code, call_numbers(machine)[call], machine=machine) == "notify"


@pytest.mark.parametrize("machine", MACHINES)
def test_other_calls_are_allowed(machine):
    """A call that no rule names is allowed: every number up to 500 but those of the watched."""
    numbers = call_numbers(machine)
    code = program(machine)
    watched = {
        number
        for number in range(500)
        if interpret(code, number, (2**64 - 1,) * 6, machine=machine) == "notify"
    }
    names = {name for name, number in numbers.items() if number in watched}
    expected = {*CALLS, "getcpu", *MAP_CHANGES, "execve", "execveat"}
    expected |= {"open", "openat", "openat2"} & set(numbers)
    assert names == expected  # madvise asked for 2**32 - 1, which drops nothing
    assert len(watched) == len(expected)


@pytest.mark.parametrize("machine", MACHINES)
def test_another_architecture_passes_through(machine):
    """A 32-bit program's calls are not ours, whatever their numbers mean there."""
    move_pages = SYSCALL_NUMBERS[machine]["move_pages"]
    assert interpret(program(machine), move_pages, arch=AUDIT_ARCH_I386) == "allow"


@pytest.mark.parametrize("number", [X32 - 1, X32, X32 | 279, X32 | 533])
def test_x32_passes_through(number):
    """Numbers with the x32 bit are allowed, and so is the last number without it."""
    assert interpret(program(), number) == "allow"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [(0x22, "allow"), (0x32, "notify"), (0x10, "notify"), (0x100022, "allow"), (0x0F, "allow")],
)
def test_mmap_is_notified_when_fixed(flags, expected):
    """Only MAP_FIXED replaces what is there; MAP_FIXED_NOREPLACE (0x100000) does not."""
    mmap = TASK_CALL_NUMBERS["x86_64"]["mmap"]
    assert interpret(program(), mmap, (0, 4096, 3, flags, 0, 0)) == expected


@pytest.mark.parametrize("advice", range(30))
def test_madvise_is_notified_when_it_drops_pages(advice):
    """DONTNEED (4), FREE (8), REMOVE (9) and DONTNEED_LOCKED (24) drop pages, no other does."""
    madvise = TASK_CALL_NUMBERS["x86_64"]["madvise"]
    expected = "notify" if advice in {4, 8, 9, 24} else "allow"
    assert interpret(program(), madvise, (0, 4096, advice)) == expected


@pytest.mark.parametrize(
    ("end", "expected"), [(0, "allow"), (1, "notify"), (0x5555_0000_1000, "notify")]
)
def test_brk_is_notified_when_it_sets_an_end(end, expected):
    """brk(0) only asks where the heap ends, which every program does."""
    assert interpret(program(), TASK_CALL_NUMBERS["x86_64"]["brk"], (end,)) == expected


@pytest.mark.parametrize("call", [*MAP_CHANGES, "madvise", "execve", "execveat"])
def test_map_changes_are_not_notified_when_lazy(call):
    """Lazy precision is told of nothing that changes the map."""
    number = TASK_CALL_NUMBERS["x86_64"][call]
    code = program(precision=Precision.LAZY, files=Files.NONE)
    assert interpret(code, number, (1 << 12, 0, 4, 0x32)) == "allow"


@pytest.mark.parametrize(("call", "place"), [("openat", 2), ("open", 1)])
@pytest.mark.parametrize(
    ("flags", "reading"),
    [
        (O_RDONLY, True),
        (O_RDONLY | O_CLOEXEC, True),
        (O_WRONLY, False),
        (O_RDWR, False),
        (O_RDONLY | O_CREAT, False),
        (O_RDONLY | O_TRUNC, False),
        (O_WRONLY | O_APPEND | O_CLOEXEC, False),
    ],
)
def test_opens_are_notified_by_their_flags(call, place, flags, reading):
    """`rdonly` is told of opens that only read, `all` of every one, `none` of none."""
    number = TASK_CALL_NUMBERS["x86_64"][call]
    args = [0x1234] * 6
    args[place] = flags

    def told(files):
        return interpret(program(files=files), number, args) == "notify"

    assert (told(Files.ALL), told(Files.RDONLY), told(Files.NONE)) == (True, reading, False)


@pytest.mark.parametrize(("files", "expected"), [("all", True), ("rdonly", True), ("none", False)])
def test_openat2_has_its_flags_in_memory(files, expected):
    """A filter cannot see the flags of openat2, so it is notified where any open is."""
    told = interpret(program(files=Files(files)), 437) == "notify"
    assert told is expected


def test_further_calls_can_be_asked_for():
    """Calls named in `also` are notified, and are not without that."""
    statx = TASK_CALL_NUMBERS["x86_64"]["statx"]
    assert interpret(program(also=("statx",)), statx) == "notify"
    assert interpret(program(), statx) == "allow"


def test_conditions_look_at_the_lower_half():
    """The upper 32 bits of an argument decide nothing."""
    code = Filter.assemble([Rule(1, (Condition(5, Test.EQUAL, 7),))], "x86_64").program
    assert interpret(code, 1, (0, 0, 0, 0, 0, 7)) == "notify"
    assert interpret(code, 1, (0, 0, 0, 0, 0, 7 | 1 << 40)) == "notify"
    assert interpret(code, 1, (0, 0, 0, 0, 0, 7 << 32)) == "allow"
    assert interpret(code, 1, (7, 7, 7, 7, 7, 0)) == "allow"


def test_any_condition_suffices():
    """Of several conditions on a call each is enough by itself."""
    conditions = (Condition(0, Test.ANY_BIT, 0b110), Condition(1, Test.NO_BIT, 0b1))
    code = Filter.assemble([Rule(1, conditions)], "x86_64").program
    assert interpret(code, 1, (0b010, 1)) == "notify"
    assert interpret(code, 1, (0b001, 2)) == "notify"
    assert interpret(code, 1, (0b001, 1)) == "allow"


def test_program_fits_into_the_kernel():
    """4096 instructions (BPF_MAXINSNS) are taken, one more is refused with a sentence."""
    start_and_end = len(Filter.assemble([], "aarch64").program) // 8
    rules = [Rule(number) for number in range((4096 - start_and_end) // 2)]
    conditional = Rule(0, (Condition(0, Test.EQUAL, 0),))  # five instructions
    fitting = Filter.assemble([*rules[:-2], conditional], "aarch64").program
    assert 4090 < len(fitting) // 8 <= 4096
    with pytest.raises(UnsupportedError, match="the kernel takes 4096"):
        Filter.assemble([*rules, conditional], "aarch64")


@pytest.mark.parametrize("machine", ["ppc64le", "i386", "", "x86-64"])
def test_unknown_machine(machine):
    """A machine whose calls we do not know is refused with those that we do."""
    with pytest.raises(UnsupportedError, match="aarch64"):
        build_filter(machine, Precision.LAZY, Files.NONE)
    with pytest.raises(UnsupportedError, match="aarch64"):
        Filter.assemble([], machine)


@pytest.mark.parametrize("machine", MACHINES)
def test_calls_with_conditions_come_first(machine):
    """The kernel runs the program for calls with conditions only, so those are decided soonest."""
    numbers = call_numbers(machine)
    code = list(abi.SOCK_FILTER.iter_unpack(program(machine)))
    order = [k for instruction, _, _, k in code if instruction == 0x15]
    places = [
        order.index(numbers[name]) for name in ("mmap", "madvise", "brk", "munmap", "move_pages")
    ]
    assert all(before < after for before, after in pairwise(places))


@pytest.mark.emulator
@pytest.mark.parametrize("files", Files)
@pytest.mark.parametrize("precision", Precision)
def test_kernel_takes_the_program(files, precision, listen):
    """The kernel's own checker accepts each filter, and its notifications are as interpreted."""
    machine = platform.machine()
    numbers = call_numbers(machine)
    seen = listen(build_filter(machine, precision, files))
    expected = {"getcpu", "get_mempolicy"}
    if precision is not Precision.LAZY:
        expected |= {"munmap", "mmap", "madvise"}
    if files is not Files.NONE:
        expected |= {"openat"}
    assert {name for name, number in numbers.items() if number in seen} == expected
    opens = seen.get(numbers["openat"], 0)
    assert opens == {Files.ALL: 2, Files.RDONLY: 1, Files.NONE: 0}[files]
