"""A NUMA machine for an unmodified program: its calls are answered by `kernel/`, over its memory.

A filter (`filter`) makes the NUMA system calls of a tree of tasks wait; the supervisor receives
them one by one, and a handler for each call makes the reply. `launch` starts the program under the
filter, `run` puts a front before both that passes exit codes and signals on.
"""
