"""The guest's init: makes a usable machine of a read-only root, then lives to reap.

The kernel starts it as `python -I -S .../guest/pid1.py`, which saves two seconds of shell forks
against an init script. The environment comes from `key=value` words of the kernel command line:

    labkeep    directories, percent-encoded, colon-separated: where the project, its virtual
               environment and Python live. They stay visible even if they lie in a directory
               that gets a tmpfs, and everybody in the guest may reach them.
"""

# pathlib is dear to import; /tmp and its modes are the guest's own.
# ruff: noqa: PTH100, PTH101, PTH102, PTH103, PTH112, PTH114, PTH116, PTH120, PTH208, PTH211
# ruff: noqa: S103, S108

from __future__ import annotations

import ctypes
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

_LIBC = ctypes.CDLL(None, use_errno=True)

_MS_RDONLY = 0x1
_MS_NOSUID = 0x2
_MS_NODEV = 0x4
_MS_REMOUNT = 0x20
_MS_BIND = 0x1000
_MS_REC = 0x4000
_REBOOT_POWER_OFF = 0x4321FEDC
_OTHERS_MAY_ENTER = 0o001

# What the guest writes to lives in memory; the rest of the root is the host's, read-only.
_VOLATILE = ("/run", "/tmp", "/var/tmp", "/dev/shm")


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """Call mount(2); raise OSError with the target where it fails."""
    done = _LIBC.mount(
        source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode()
    )
    if done != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target)


def _optionally(source: str, target: str, kind: str, options: str = "") -> None:
    """Mount what a kernel or a host may lack; leave a line on the console where it does."""
    try:
        mount(source, target, kind, 0, options)
    except OSError as problem:
        print(f"lab: not mounted: {problem}", flush=True)


def _write(path: str, text: str) -> None:
    """Write to a kernel file in one write(2).

    `open().write()` reports an error of sysfs only when it is closed, and hides it there.
    """
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, text.encode())
    except OSError as problem:
        print(f"lab: {path} <- {text!r}: {problem}", flush=True)
    finally:
        os.close(fd)


def kernel_file_systems() -> None:
    """Mount /proc, /sys and /dev, as a system's init would."""
    mount("proc", "/proc", "proc")
    mount("sysfs", "/sys", "sysfs")
    # CONFIG_DEVTMPFS_MOUNT does not act here: without this there is no port to the host.
    mount("devtmpfs", "/dev", "devtmpfs")
    for name, target in (
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ):
        os.symlink(target, f"/dev/{name}")
    for name in ("pts", "shm", "hugepages"):
        os.mkdir(f"/dev/{name}")
    _optionally("devpts", "/dev/pts", "devpts", "ptmxmode=0666,mode=0620")
    _optionally("hugetlbfs", "/dev/hugepages", "hugetlbfs", "mode=1777")
    _optionally("debugfs", "/sys/kernel/debug", "debugfs")
    _optionally("tracefs", "/sys/kernel/tracing", "tracefs")


def control_groups() -> None:
    """Mount cgroup2 and hand its controllers to sub groups, one by one: a kernel may lack one."""
    mount("cgroup2", "/sys/fs/cgroup", "cgroup2")
    for controller in ("cpuset", "memory", "cpu", "pids", "hugetlb"):
        _write("/sys/fs/cgroup/cgroup.subtree_control", f"+{controller}")


def hold(keeps: list[str]) -> list[tuple[str, int]]:
    """Return the kept directories that mounts will cover, with a descriptor of each.

    An O_PATH descriptor still leads to a directory after something was mounted over its path.
    """
    covered = [keep for keep in keeps if keep.startswith(tuple(f"{v}/" for v in _VOLATILE))]
    return [(keep, os.open(keep, os.O_PATH | os.O_DIRECTORY)) for keep in covered]


def volatile_directories(held: list[tuple[str, int]]) -> None:
    """Lay a tmpfs over each writable place, and put back the directories held beneath it."""
    for place in _VOLATILE:
        if os.path.isdir(place) and not os.path.islink(place):
            mount("tmpfs", place, "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=1777")
    os.chmod("/run", 0o755)
    for keep, handle in held:
        os.makedirs(keep, exist_ok=True)
        _bind_handle(handle, keep)
    os.mkdir("/tmp/home")
    os.chmod("/tmp/home", 0o777)


def open_way(path: str) -> None:
    """Let every user of the guest reach `path`, though a directory above it is closed on the host.

    A Python below /root (mode 0700) could not be run by uid 1000. The host's directory cannot be
    changed, so a tmpfs with the same entries is laid over it, which others may pass through; only
    `path` itself may they list.
    """
    parts = path.strip("/").split("/")
    for depth in range(1, len(parts) + 1):
        directory = "/" + "/".join(parts[:depth])
        if not os.stat(directory).st_mode & _OTHERS_MAY_ENTER:
            _replicate(directory, "0755" if depth == len(parts) else "0711")


def _replicate(directory: str, mode: str) -> None:
    """Cover a directory with a tmpfs that has the same entries, each bound from below."""
    entries = []
    for name in os.listdir(directory):
        try:
            handle = os.open(f"{directory}/{name}", os.O_PATH | os.O_NOFOLLOW)
        except OSError:  # the host removed it meanwhile, or keeps it to itself
            continue
        entries.append((f"{directory}/{name}", handle))
    flags = _MS_NOSUID | _MS_NODEV
    mount("tmpfs", directory, "tmpfs", flags, f"mode={mode}")
    for path, handle in entries:
        _recreate(path, handle)
    mount("tmpfs", directory, "tmpfs", flags | _MS_REMOUNT | _MS_RDONLY)


def _recreate(path: str, handle: int) -> None:
    """Make one entry of a replicated directory: link, directory or file."""
    kind = os.fstat(handle).st_mode & 0o170000
    if kind == 0o120000:
        os.symlink(os.readlink("", dir_fd=handle), path)
        os.close(handle)
        return
    if kind == 0o040000:
        os.mkdir(path)
    else:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
    _bind_handle(handle, path)


def _bind_handle(handle: int, target: str) -> None:
    """Bind what an O_PATH descriptor refers to, whatever lies over its path now."""
    mount(f"/proc/self/fd/{handle}", target, "", _MS_BIND | _MS_REC)
    os.close(handle)


def network() -> None:
    """Bring the loopback interface up; give the machine a name of its own."""
    import _socket  # the bare extension: `socket` itself imports a dozen modules
    import fcntl

    _write("/proc/sys/kernel/hostname", "lab")
    interface_up = b"lo".ljust(16, b"\0") + (0x1).to_bytes(2, "little") + bytes(22)
    control = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
    fcntl.ioctl(control.fileno(), 0x8914, interface_up)  # SIOCSIFFLAGS, IFF_UP
    control.close()


def unquote(text: str) -> str:
    """Undo percent-encoding (urllib costs a third of a second to import here)."""
    head, *rest = text.encode().split(b"%")
    return (head + b"".join(bytes([int(r[:2], 16)]) + r[2:] for r in rest)).decode()


def _agent() -> None:
    """Become the agent: it must outlive a full machine, its commands need not."""
    from guest import agent

    _write("/proc/self/oom_score_adj", "-1000")
    agent.serve()


def main() -> None:
    """Set the machine up, start the agent, reap until it ends, power off."""
    if os.getpid() != 1:
        sys.exit("pid1 is the init of a guest: it would lay its mounts over this machine's")
    keeps = [unquote(keep) for keep in os.environ.pop("labkeep", "").split(":") if keep]
    held = hold(keeps)
    kernel_file_systems()
    volatile_directories(held)
    for keep in keeps:
        open_way(keep)
    control_groups()
    network()
    agent = os.fork()
    if agent == 0:
        try:
            _agent()
        finally:
            os._exit(1)
    while os.wait()[0] != agent:
        pass
    _LIBC.reboot(_REBOOT_POWER_OFF)


if __name__ == "__main__":
    main()
