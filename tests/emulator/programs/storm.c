/*
 * Calls, forks, execs and signals all at once: storm PROCESSES THREADS CALLS.
 *
 * Each thread has pages of its own with a pattern in them. It moves them about, asks where they
 * are, and checks that nothing is lost: a page is where the last call put it, with what was in it.
 * With MOVE_ALL, for other threads' children share the pages for a while.
 * A timer interrupts the process all the while; its handler restarts calls. Prints what was wrong,
 * and nothing if nothing was.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGES = 64, NODES = 4, MOVE_ALL = 4, BIND = 2, INTERLEAVE = 3, NODE_OF_ADDRESS = 3 };

extern char **environ;
static int calls, wrong;

static void complain(const char *what, long got, long wanted)
{
	printf("%s: %ld, not %ld (errno %d)\n", what, got, wanted, errno);
	__atomic_store_n(&wrong, 1, __ATOMIC_RELAXED);
}

static void on_timer(int number)
{
	(void)number;
}

static void fork_a_child(void *own)
{
	pid_t pid = fork();
	if (pid == 0) {
		/* What the child has inherited is where it was, and moves without the parent's. */
		int status = -1;
		syscall(SYS_move_pages, 0, 1L, &own, NULL, &status, 0);
		_exit(status < 0 || *(uint64_t *)own == 0);
	}
	int ended;
	while (waitpid(pid, &ended, 0) < 0 && errno == EINTR)
		;
	if (ended != 0)
		complain("a child ended with", ended, 0);
}

static void run_a_program(void)
{
	char *arguments[] = {"true", NULL};
	pid_t pid;
	int ended;
	if (posix_spawn(&pid, "/bin/true", NULL, NULL, arguments, environ) != 0)
		return complain("posix_spawn", errno, 0);
	while (waitpid(pid, &ended, 0) < 0 && errno == EINTR)
		;
	if (ended != 0)
		complain("true ended with", ended, 0);
}

static void check_places(char *memory, const int *expected)
{
	void *pages[PAGES];
	int status[PAGES];
	for (int i = 0; i < PAGES; i++)
		pages[i] = memory + i * 4096L;
	long ret = syscall(SYS_move_pages, 0, (long)PAGES, pages, NULL, status, 0);
	if (ret != 0)
		return complain("query", ret, 0);
	for (int i = 0; i < PAGES; i++) {
		if (expected[i] >= 0 && status[i] != expected[i])
			complain("a page is on node", status[i], expected[i]);
		if (*(uint64_t *)pages[i] != (uintptr_t)pages[i])
			complain("a page holds", *(long *)pages[i], (long)pages[i]);
	}
}

static void move_some(char *memory, int *expected, unsigned *seed)
{
	void *pages[PAGES];
	int nodes[PAGES], status[PAGES], count = 1 + rand_r(seed) % PAGES;
	for (int i = 0; i < count; i++) {
		pages[i] = memory + i * 4096L;
		nodes[i] = expected[i] = rand_r(seed) % NODES;
	}
	long ret = syscall(SYS_move_pages, 0, (long)count, pages, nodes, status, MOVE_ALL);
	if (ret != 0)
		return complain("move", ret, 0);
	for (int i = 0; i < count; i++)
		if (status[i] != nodes[i])
			complain("a page was moved to", status[i], nodes[i]);
}

static void *work(void *argument)
{
	unsigned seed = (unsigned)(uintptr_t)argument;
	int expected[PAGES];
	char *memory = mmap(NULL, PAGES * 4096L, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	for (int i = 0; i < PAGES; i++) {
		*(uint64_t *)(memory + i * 4096L) = (uintptr_t)(memory + i * 4096L);
		expected[i] = -1;
	}
	for (int i = 0; i < calls; i++) {
		unsigned long mask = 1UL << rand_r(&seed) % NODES;
		int mode;
		switch (rand_r(&seed) % 16) {
		case 0:
			if (syscall(SYS_set_mempolicy, INTERLEAVE, &mask, 65L) != 0)
				complain("set_mempolicy", errno, 0);
			break;
		case 1:
			if (syscall(SYS_mbind, memory, 16 * 4096L, BIND, &mask, 65L, 0L) != 0)
				complain("mbind", errno, 0);
			break;
		case 2:
			fork_a_child(memory);
			break;
		case 3:
			if (rand_r(&seed) % 4 == 0)
				run_a_program();
			break;
		case 4:
			if (syscall(SYS_get_mempolicy, &mode, NULL, 0L, memory, NODE_OF_ADDRESS))
				complain("get_mempolicy", errno, 0);
			else if (expected[0] >= 0 && mode != expected[0])
				complain("the first page is on node", mode, expected[0]);
			break;
		case 5: case 6: case 7: case 8: case 9:
			move_some(memory, expected, &seed);
			break;
		default:
			check_places(memory, expected);
		}
	}
	check_places(memory, expected);
	munmap(memory, PAGES * 4096L);
	return NULL;
}

static int process(int number, int threads)
{
	pthread_t all[threads];
	struct itimerval often = {{0, 5000}, {0, 5000}};
	struct sigaction action = {.sa_handler = on_timer, .sa_flags = SA_RESTART};
	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &often, NULL);
	for (int i = 0; i < threads; i++)
		pthread_create(&all[i], NULL, work, (void *)(uintptr_t)(number * threads + i + 1));
	for (int i = 0; i < threads; i++)
		pthread_join(all[i], NULL);
	return wrong;
}

int main(int argc, char **argv)
{
	if (argc != 4)
		return 2;
	int processes = atoi(argv[1]), ended;
	calls = atoi(argv[3]);
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (int i = 0; i < processes; i++)
		if (fork() == 0)
			_exit(process(i, atoi(argv[2])));
	while (wait(&ended) > 0)
		wrong |= ended != 0;
	return wrong;
}
