/*
 * Times system calls from within a program: emulated PAGES. Run natively and under the emulator.
 *
 * Prints a line for each kind of call, its name and then nanoseconds of single calls, by the clock
 * on the wall: what the program waits for. Calls for many pages are on PAGES pages in order.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { SHORT_CALLS = 301, LONG_CALLS = 7, MOVE = 2, NO_HUGE_PAGES = 15 };

static long pages;
static void **addresses;
static int *nodes, *status;

static long now_ns(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000L + time.tv_nsec;
}

static long not_notified(void)
{
	return syscall(SYS_getppid) < 0;
}

static long policy_of_thread(void)
{
	int mode;
	return syscall(SYS_get_mempolicy, &mode, NULL, 0L, NULL, 0L);
}

static long query_one(void)
{
	return syscall(SYS_move_pages, 0, 1L, addresses, NULL, status, 0);
}

static long query_all(void)
{
	return syscall(SYS_move_pages, 0, pages, addresses, NULL, status, 0);
}

static long move_all(void)
{
	return syscall(SYS_move_pages, 0, pages, addresses, nodes, status, MOVE);
}

static void time_calls(const char *name, long (*call)(void), int count)
{
	printf("%s", name);
	for (int i = 0; i < count; i++) {
		long start = now_ns();
		if (call() != 0)
			exit(1);
		printf(" %ld", now_ns() - start);
	}
	printf("\n");
}

int main(int argc, char **argv)
{
	if (argc != 2)
		return 2;
	pages = atol(argv[1]);
	char *memory = mmap(NULL, pages * 4096, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	addresses = malloc(pages * sizeof *addresses);
	nodes = calloc(pages, sizeof *nodes);
	status = calloc(pages, sizeof *status);
	madvise(memory, pages * 4096, NO_HUGE_PAGES);
	for (long i = 0; i < pages; i++) {
		addresses[i] = memory + i * 4096;
		memory[i * 4096] = 1;
		status[i] = -1;
	}
	time_calls("not_notified", not_notified, SHORT_CALLS);
	time_calls("policy_of_thread", policy_of_thread, SHORT_CALLS);
	time_calls("query_first", query_all, 1);
	time_calls("query_again", query_all, LONG_CALLS);
	time_calls("query_one", query_one, SHORT_CALLS);
	time_calls("move_all", move_all, LONG_CALLS);
	return 0;
}
