from __future__ import annotations

import copy
import errno
import inspect
import pickle
import re
from pathlib import Path

import numpy as np
import pytest

from movepages import errors
from movepages.abi import CALL_ERRORS, CALLS, UNWRITTEN, Errno
from movepages.errors import CallError, MovePagesError, call_error, no_such_process
from movepages.values import CallResult

BUILTINS = {
    "NodeSetError": ValueError,
    "SizeError": ValueError,
    "ArgumentError": ValueError,
    "TopologyError": ValueError,
    "MalformedError": ValueError,
    "UnsupportedError": RuntimeError,
    "CallError": OSError,
    "NoSuchProcessError": ProcessLookupError,
    "NotPermittedError": PermissionError,
    "FilteredError": PermissionError,
    "OutsideCpusetError": PermissionError,
    "NoSuchNodeError": LookupError,
    "InvalidCallError": ValueError,
    "BadAddressError": ValueError,
    "NodeFullError": MemoryError,
    "MisplacedError": OSError,
    "NoSuchCallError": OSError,
}

BY_ERRNO = {
    Errno.ESRCH: errors.NoSuchProcessError,
    Errno.EPERM: errors.NotPermittedError,
    Errno.EACCES: errors.OutsideCpusetError,
    Errno.ENODEV: errors.NoSuchNodeError,
    Errno.EINVAL: errors.InvalidCallError,
    Errno.EFAULT: errors.BadAddressError,
    Errno.ENOMEM: errors.NodeFullError,
    Errno.EIO: errors.MisplacedError,
    Errno.ENOSYS: errors.NoSuchCallError,
}


def error_classes():
    """Return the error classes of the module by name, without their base."""
    classes = inspect.getmembers(errors, inspect.isclass)
    return {name: c for name, c in classes if issubclass(c, Exception) and c is not MovePagesError}


def test_the_tree_is_complete():
    """Every error class is listed here with the builtin that it promises to be."""
    assert set(error_classes()) == set(BUILTINS)


def test_the_tree_is_drawn_at_the_top():
    """The drawing in the module's docstring names each class once, with its builtin."""
    drawn = re.findall(r"─ (\w+)(?: \((\w+)\))?", errors.__doc__)
    assert sorted(name for name, _ in drawn) == sorted(BUILTINS)
    assert {name: builtin for name, builtin in drawn if builtin} == {
        name: builtin.__name__ for name, builtin in BUILTINS.items() if (name, "") not in drawn
    }


@pytest.mark.parametrize("name", sorted(BUILTINS))
def test_an_error_is_the_builtin_that_it_promises(name):
    """Whoever knows only Python's own errors can catch ours."""
    error = error_classes()[name]
    assert issubclass(error, MovePagesError)
    assert issubclass(error, BUILTINS[name])


def test_node_set_and_size_errors_carry_the_text():
    """What was refused can be shown again."""
    assert errors.NodeSetError("bad", text="0-x").text == "0-x"
    assert errors.SizeError("bad", text="1Q").text == "1Q"
    assert str(errors.SizeError("'1Q' is not a size", text="1Q")) == "'1Q' is not a size"


def test_malformed_error_says_where():
    """Path, line and field stand in the message and as attributes."""
    error = errors.MalformedError(Path("/proc/1/maps"), 7, "start", "'x' is not a number")
    assert str(error) == "/proc/1/maps, line 7: start: 'x' is not a number"
    assert (error.path, error.line, error.field) == (Path("/proc/1/maps"), 7, "start")


def test_malformed_error_of_a_file_with_one_value_has_no_line():
    """Line 0 means the file is one value, and is left out of the message."""
    assert str(errors.MalformedError("/sys/x", 0, "value", "empty")) == "/sys/x: value: empty"


@pytest.mark.parametrize("number", list(Errno))
def test_call_error_chooses_the_class_by_errno(number):
    """Each errno becomes its class, or a plain CallError, and keeps its number as an int."""
    error = call_error(-number, "move_pages")
    assert type(error) is BY_ERRNO.get(number, CallError)
    assert error.errno == number
    assert type(error.errno) is int


@pytest.mark.parametrize("number", list(Errno))
@pytest.mark.parametrize("call", CALLS)
def test_call_error_says_a_sentence(call, number):
    """The message names the call and what is wrong, and is one line to be shown as it is."""
    message = str(call_error(-number, call))
    assert re.fullmatch(rf"{call}: \S.{{10,}}[^.\s]", message)


@pytest.mark.parametrize("meaning", CALL_ERRORS)
def test_call_error_says_what_the_table_says_of_its_call(meaning):
    """Meaning and remedy of the errno for that call, and no other call's, are in the message."""
    for call in meaning.call.split(", "):
        message = str(call_error(meaning.code, call))
        assert message == f"{call}: {meaning.meaning}; {meaning.remedy}"


def test_an_errno_that_is_not_known_is_named():
    """A number without a description is still given by name or number."""
    assert "errno 71" in str(call_error(-71, "move_pages"))
    assert "EIO" in str(call_error(-errno.EIO, "migrate_pages"))


def test_detail_takes_the_place_of_the_general_sentence():
    """Who knows more than the errno says it instead."""
    error = call_error(-Errno.ENODEV, "move_pages", detail="node 9 does not exist")
    assert str(error) == "move_pages: node 9 does not exist"


def test_call_error_carries_all_facts():
    """errno, call, arguments, pid, address, node and result are attributes."""
    result = CallResult(-14, np.array([UNWRITTEN], dtype=np.int32))
    error = call_error(
        -Errno.EFAULT,
        "move_pages",
        pid=7,
        address=0x1000,
        node=3,
        arguments={"flags": 2},
        result=result,
    )
    assert (error.errno, error.call, error.pid, error.address, error.node) == (
        14,
        "move_pages",
        7,
        0x1000,
        3,
    )
    assert error.arguments == {"flags": 2}
    assert error.result is result


def test_facts_that_are_not_known_are_none():
    """Missing facts are None, missing arguments an empty dictionary of its own."""
    for error in (call_error(-Errno.ESRCH, "move_pages"), CallError(3, "gone", call="move_pages")):
        assert (error.pid, error.address, error.node, error.result) == (None, None, None, None)
        assert error.arguments == {}


def test_the_arguments_are_copied():
    """Changing the dictionary afterwards does not change the error."""
    arguments = {"flags": 2}
    error = call_error(-Errno.EINVAL, "move_pages", arguments=arguments)
    arguments.clear()
    assert error.arguments == {"flags": 2}


def test_no_such_process_names_the_pid():
    """The pid is in the message and an attribute."""
    error = no_such_process(4711, "open pagemap")
    assert isinstance(error, ProcessLookupError)
    assert (error.pid, error.errno, error.call) == (4711, errno.ESRCH, "open pagemap")
    assert str(error) == (
        "open pagemap: there is no process 4711; check the pid, it may have ended"
    )


@pytest.mark.parametrize(
    "error",
    [
        errors.NodeSetError("bad", text="x"),
        errors.SizeError("bad", text="y"),
        errors.ArgumentError("bad"),
        errors.TopologyError("bad"),
        errors.UnsupportedError("bad"),
        errors.MalformedError("/proc/x", 3, "field", "bad"),
        *(
            call_error(-number, "move_pages", pid=1, node=2, arguments={"flags": 4})
            for number in Errno
        ),
    ],
)
@pytest.mark.parametrize("remake", [copy.copy, lambda e: pickle.loads(pickle.dumps(e))])  # noqa: S301 - made here
def test_errors_survive_copying_and_pickling(error, remake):
    """A process pool hands errors over whole: class, message, number and facts."""
    again = remake(error)
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert repr(again) == repr(error)
    assert again.args == error.args
    assert vars(again) == vars(error)


def test_a_pickled_error_has_its_statuses():
    """The result of a call that failed halfway goes with the error."""
    status = np.array([1, UNWRITTEN], dtype=np.int32)
    error = call_error(-Errno.ENOMEM, "move_pages", result=CallResult(-12, status))
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - made here
    assert again.result.ret == -12
    assert again.result.status.tolist() == [1, UNWRITTEN]


def test_repr_shows_class_number_and_sentence():
    """What a traceback or a log shows is readable."""
    error = call_error(-Errno.ESRCH, "move_pages", detail="gone")
    assert repr(error) == "NoSuchProcessError(3, 'move_pages: gone')"
