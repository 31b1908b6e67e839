"""Pages of files: shared memory objects, and a file of a file system."""

from suite.asking import MOVE_ALL, at, move, query, touched
from suite.protocol import addresses_of
from suite.registry import scenario


@scenario(
    "tmpfs, ext4 dirty shared, fuse clean file pages mapped once",
    "tmpfs file MAP_SHARED, one mapper",
)
def shared_memory_object(world):
    """Pages of a shared memory object that one process maps move like private ones."""
    file = world.shmem(8)
    p, other = world.process(), world.process(cpu=1)
    pages = touched(p, 8, shared=True, file=file)
    yield move(p, "MOVE", pages, 2)
    view = addresses_of(other.mmap(8, shared=True, file=file), 8)
    other.read(view[0], 4)
    yield query(other, "mapped by another, half of it touched", view)
    yield move(p, "MOVE", pages, 3)
    yield move(other, "the other's, MOVE_ALL", view, 1, MOVE_ALL)
    yield at(p, "the first sees", pages)


@scenario("tmpfs, ext4 dirty shared, fuse clean file pages mapped once")
def private_copies_of_a_file(world):
    """A private mapping reads the file's pages, and has its own of those it writes."""
    file = world.shmem(4)
    p, reader = world.process(), world.process()
    shared = touched(p, 4, shared=True, file=file)
    private = addresses_of(reader.mmap(4, file=file), 4)
    reader.read(private[0], 4)
    reader.write(private[0], 2)
    yield move(reader, "MOVE: two copies, two of the file", private, 1)
    yield move(reader, "MOVE_ALL", private, 2, MOVE_ALL)
    yield at(p, "the file is", shared)


@scenario(
    "tmpfs, ext4 dirty shared, fuse clean file pages mapped once",
    "file page cache (virtiofs/ro) query",
    "file page cache move -> 3",
    needs="files",
)
def clean_file_pages(world):
    """Clean pages of a file on a file system move; unmapped they are not there."""
    file = world.cached_file()
    p = world.process()
    pages = addresses_of(p.mmap(2, prot="r", file=file), 2)
    yield query(p, "untouched", pages)
    p.read(pages[0], 2)
    yield query(p, "read", pages)
    yield move(p, "MOVE", pages, 3)
    p.madvise(pages[0], 2, "dontneed")
    yield query(p, "cached, but not mapped", pages)
    p.read(pages[0], 2)
    yield move(p, "read again, MOVE", pages, 1)


@scenario("memfd_secret page to another node", needs="files")
def secret_memory(world):
    """Secret memory never moves."""
    file = world.secret(2)
    p = world.process()
    pages = touched(p, 2, shared=True, file=file)
    yield move(p, "where it is", pages, 0)
    yield move(p, "elsewhere", pages, 1)
