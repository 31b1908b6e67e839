/*
 * move_pages(2) as a C program calls it, timed in here: what benchmarks/calls.py compares with.
 *
 * Each call does what movepages.query_pages and movepages.move_pages do: it fills the statuses with
 * the value that no kernel writes, then enters the kernel. Compiled with -O2 into a shared library,
 * so that it runs in the process of the benchmark, on the same memory and the same addresses.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static long long thread_cpu_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return now.tv_sec * 1000000000LL + now.tv_nsec;
}

/* Returns the nanoseconds of CPU time that all calls took, or -errno (positive returns count as 0). */
long long time_calls(int pid, unsigned long count, void **pages, const int *nodes, int *status,
		     int flags, long calls)
{
	long long start = thread_cpu_ns();

	for (long call = 0; call < calls; call++) {
		for (unsigned long page = 0; page < count; page++)
			status[page] = INT_MIN;
		if (syscall(SYS_move_pages, pid, count, pages, nodes, status, flags) < 0)
			return -errno;
	}
	return thread_cpu_ns() - start;
}
