"""What lab/run does, from its arguments to its exit code."""

from __future__ import annotations

import argparse
import signal
import sys
from typing import TYPE_CHECKING

from labkit import doctor, errors, kernels, options, rootfs, setup, topologies
from labkit.launch import boot
from labkit.project import find_project

if TYPE_CHECKING:
    from types import FrameType

    from labkit.guest import Command, Guest

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(argv: list[str]) -> int:
    """Run the command line; return the exit code."""
    _end_orderly_on_signals()
    try:
        if argv and argv[0] in _SUBCOMMANDS:
            return _SUBCOMMANDS[argv[0]](argv[1:])
        return run(options.parse(argv))
    except errors.LabError as problem:
        _report(str(problem))
        return problem.code
    except BrokenPipeError:
        # Whoever read our output has gone: end as a program that the signal killed.
        sys.stdout = None  # else its flush at exit fails again
        return 128 + signal.SIGPIPE


def _end_orderly_on_signals() -> None:
    """Turn signals into an exception, so that the guest is taken down on the way out."""
    for signum in _SIGNALS:
        # Under nohup, SIGHUP is ignored and stays so.
        if signum != signal.SIGHUP or signal.getsignal(signum) != signal.SIG_IGN:
            signal.signal(signum, _interrupt)


def _interrupt(signum: int, _frame: FrameType | None) -> None:
    """Raise the exception; a second signal must not interrupt the taking down."""
    for other in _SIGNALS:
        signal.signal(other, signal.SIG_IGN)
    raise errors.SignalledError(signum)


def run(wanted: options.Options) -> int:
    """Boot a guest, run the commands, bring the files back; return the exit code."""
    root = rootfs.preferred() if wanted.root == "auto" else wanted.root
    kernel = kernels.require(kernels.variant(wanted.kernel, root))
    with boot(wanted.topology, kernel, find_project(), wanted.console) as guest:
        name, seconds = wanted.topology.name, guest.boot_seconds
        announce = not wanted.quiet
        if announce:
            _report(f"Linux {guest.release}, {name}: booted in {seconds:.1f} s")
        codes = []
        for number, command in enumerate(wanted.commands, 1):
            if announce and len(wanted.commands) > 1:
                _report(f"{number}/{len(wanted.commands)}: {' '.join(command.argv)}")
            codes.append(_run_one(guest, command))
        codes += [_fetch_one(guest, fetch) for fetch in wanted.fetches]
    return first_failure(codes)


def _run_one(guest: Guest, command: Command) -> int:
    """Run one command, its output going to ours; return its exit code."""
    result = guest.run(command, _pass_through)
    if result.timed_out:
        _report(f"killed after {command.timeout:g} s: {' '.join(command.argv)}")
        return errors.TIMED_OUT
    return result.code


def _pass_through(stream: str, data: bytes) -> None:
    """Write the guest's bytes to the same stream of ours, at once."""
    target = sys.stdout.buffer if stream == "out" else sys.stderr.buffer
    target.write(data)
    target.flush()


def _fetch_one(guest: Guest, fetch: options.Fetch) -> int:
    """Bring one file back; return 1 if it cannot be had."""
    try:
        guest.fetch(fetch.source, fetch.target)
    except FileNotFoundError as problem:
        _report(str(problem))
        return 1
    return 0


def first_failure(codes: list[int]) -> int:
    """Return the first exit code that is not 0."""
    return next((code for code in codes if code), 0)


def _report(text: str) -> None:
    """Say something on stderr, where it cannot be taken for the command's output."""
    print(f"lab: {text}", file=sys.stderr, flush=True)


def _setup(argv: list[str]) -> int:
    """Get what is missing."""
    parser = argparse.ArgumentParser(
        prog="lab/run setup",
        description="Get QEMU (as root, on Debian) and kernels to boot; none is installed.",
    )
    parser.add_argument(
        "--kernel",
        choices=kernels.CHOICES,
        action="append",
        help=f"kernel to get; may be repeated ({kernels.DEFAULT_KERNEL})",
    )
    parser.add_argument(
        "--root", choices=options.ROOTS, default="auto", help="for this way to the root (auto)"
    )
    wanted = parser.parse_args(argv)
    setup.setup(wanted.kernel or [kernels.DEFAULT_KERNEL], wanted.root, _report)
    return 0


def _doctor(argv: list[str]) -> int:
    """Print what works here."""
    argparse.ArgumentParser(
        prog="lab/run doctor", description="Print what the lab finds here and what is missing."
    ).parse_args(argv)
    checks = doctor.examine()
    print(doctor.render(checks, rootfs.preferred()))
    return 0 if doctor.can_run(checks) else errors.UNAVAILABLE


def _topologies(argv: list[str]) -> int:
    """List the machines."""
    argparse.ArgumentParser(
        prog="lab/run topologies", description="List the machines that the lab can be."
    ).parse_args(argv)
    for topology in topologies.TOPOLOGIES.values():
        print(f"{topology.name:<11} {topology.mib:>5} MiB  {topology.summary}")
    return 0


_SUBCOMMANDS = {"doctor": _doctor, "setup": _setup, "topologies": _topologies}
