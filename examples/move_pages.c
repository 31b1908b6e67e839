/*
 * Provokes every status of a page and every refusal of move_pages(2), and checks each.
 *
 *     cc -O2 -Wall -Wextra -Werror -o move_pages examples/move_pages.c
 *     ./move_pages
 *     movepages emulate --nodes 4 -- ./move_pages
 *
 * One line per check; exit code 0 when all hold. What needs a second node is left out where there
 * is none, what root may do is checked to be refused to others. System calls are raw, and stdio is
 * all there is of a C library.
 *
 * Statuses are those of Linux 6.12. Three of 2006 are never seen today: -EPERM (mlocked pages move),
 * -EIO and -EINVAL (a page that cannot be written back is counted in the return value).
 */

#include <asm/unistd.h>
#include <linux/capability.h>
#include <linux/errno.h>
#include <linux/mempolicy.h>
#include <linux/mman.h>
#include <linux/signal.h>
#include <stdio.h>

#define PAGE 4096UL
#define PAGES 64
#define MAX_NODES 1024
#define BITS (8 * sizeof(long))
#define NEVER_WRITTEN (-9999)

static int failed, left_out, checks;

static long raw(long number, long a, long b, long c, long d, long e, long f)
{
#if defined(__x86_64__)
	long ret;
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;
	__asm__ volatile("syscall"
			 : "=a"(ret)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return ret;
#elif defined(__aarch64__)
	register long x8 __asm__("x8") = number;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	register long x4 __asm__("x4") = e;
	register long x5 __asm__("x5") = f;
	__asm__ volatile("svc 0"
			 : "+r"(x0)
			 : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
			 : "memory");
	return x0;
#elif defined(__riscv)
	register long a7 __asm__("a7") = number;
	register long a0 __asm__("a0") = a;
	register long a1 __asm__("a1") = b;
	register long a2 __asm__("a2") = c;
	register long a3 __asm__("a3") = d;
	register long a4 __asm__("a4") = e;
	register long a5 __asm__("a5") = f;
	__asm__ volatile("ecall"
			 : "+r"(a0)
			 : "r"(a7), "r"(a1), "r"(a2), "r"(a3), "r"(a4), "r"(a5)
			 : "memory");
	return a0;
#else
#error "no system calls for this architecture yet: add them to raw()"
#endif
}

static long move_pages(long pid, unsigned long count, char **pages, const int *nodes, int *status,
		       int flags)
{
	return raw(__NR_move_pages, pid, count, (long)pages, (long)nodes, (long)status, flags);
}

/* Memory that nobody has touched. */
static char *map(unsigned long pages)
{
	return (char *)raw(__NR_mmap, 0, pages * PAGE, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static void check(const char *what, long got, long wanted)
{
	checks++;
	if (got == wanted) {
		printf("ok    %s: %ld\n", what, got);
	} else {
		printf("FAIL  %s: %ld, and should be %ld\n", what, got, wanted);
		failed++;
	}
}

static void leave_out(const char *what)
{
	printf("-     %s: needs a second node\n", what);
	left_out++;
}

/* The status of one page: where it is, or where it is after a move; or why the call failed. */
static long status_of(long pid, char *page, const int *node, int flags)
{
	int status = NEVER_WRITTEN;
	long ret = move_pages(pid, 1, &page, node, &status, flags);

	return ret ? ret : status;
}

static long where(char *page)
{
	return status_of(0, page, NULL, 0);
}

static long moved(char *page, int node, int flags)
{
	return status_of(0, page, &node, flags);
}

/* The nodes that may be used, in rising order; returns how many. */
static int read_nodes(int *nodes)
{
	unsigned long mask[MAX_NODES / BITS] = { 0 };
	int count = 0;

	if (raw(__NR_get_mempolicy, 0, (long)mask, MAX_NODES, 0, MPOL_F_MEMS_ALLOWED, 0))
		return 0;
	for (int node = 0; node < MAX_NODES; node++)
		if (mask[node / BITS] >> node % BITS & 1)
			nodes[count++] = node;
	return count;
}

static int may_move_all(void)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2] = { 0 };

	raw(__NR_capget, (long)&header, (long)data, 0, 0, 0, 0);
	return data[0].effective >> CAP_SYS_NICE & 1;
}

/* Fork a child that lives until `hold` is closed, and shares all our pages meanwhile. */
static long fork_sharer(int *hold)
{
	int ends[2];
	char nothing;

	raw(__NR_pipe2, (long)ends, 0, 0, 0, 0, 0);
	long pid = raw(__NR_clone, SIGCHLD, 0, 0, 0, 0, 0);

	if (pid == 0) {
		raw(__NR_close, ends[1], 0, 0, 0, 0, 0);
		raw(__NR_read, ends[0], (long)&nothing, 1, 0, 0, 0);
		raw(__NR_exit_group, 0, 0, 0, 0, 0, 0);
	}
	raw(__NR_close, ends[0], 0, 0, 0, 0, 0);
	*hold = ends[1];
	return pid;
}

static void end_sharer(long pid, int hold)
{
	raw(__NR_close, hold, 0, 0, 0, 0, 0);
	raw(__NR_wait4, pid, 0, 0, 0, 0, 0);
}

static void touch(char *memory, unsigned long pages)
{
	for (unsigned long i = 0; i < pages; i++)
		for (unsigned long j = 0; j < PAGE; j++)
			memory[i * PAGE + j] = (char)(i * 7 + j);
}

static long wrong_bytes(const char *memory, unsigned long pages)
{
	long wrong = 0;

	for (unsigned long i = 0; i < pages; i++)
		for (unsigned long j = 0; j < PAGE; j++)
			wrong += memory[i * PAGE + j] != (char)(i * 7 + j);
	return wrong;
}

/* Every kind of page, asked about and to be moved. */
static void check_kinds(int here, int there)
{
	char *memory = map(8);
	char *hole = memory + 7 * PAGE;

	touch(memory, 1);
	(void)*(volatile char *)(memory + PAGE);
	touch(memory + 3 * PAGE, 1);
	raw(__NR_madvise, (long)memory + 3 * PAGE, PAGE, MADV_DONTNEED, 0, 0, 0);
	raw(__NR_munmap, (long)hole, PAGE, 0, 0, 0, 0);

	check("a touched page, to its own node", moved(memory, where(memory), MPOL_MF_MOVE),
	      where(memory));
	check("a page read but never written: the zero page", where(memory + PAGE), -EFAULT);
	check("the zero page, to be moved", moved(memory + PAGE, there, MPOL_MF_MOVE), -EFAULT);
	check("a page never touched", where(memory + 2 * PAGE), -ENOENT);
	check("a page never touched, to be moved", moved(memory + 2 * PAGE, there, MPOL_MF_MOVE),
	      -ENOENT);
	check("a page that was given back", where(memory + 3 * PAGE), -ENOENT);
	check("an address without a mapping", where(hole), -EFAULT);
	check("an address without a mapping, to be moved", moved(hole, there, MPOL_MF_MOVE),
	      -EFAULT);
	check("an address of the kernel", where((char *)-PAGE), -EFAULT);
	check("an address within a page", where(memory + 17), where(memory));
	if (here == there) {
		leave_out("a page that moves");
		return;
	}
	check("a page, to a first node", moved(memory, here, MPOL_MF_MOVE), here);
	check("the same page, to another", moved(memory, there, MPOL_MF_MOVE), there);
	check("asked again", where(memory), there);
	check("the same page, to where it is", moved(memory, there, MPOL_MF_MOVE), there);
	check("flags 0 moves as well", moved(memory, here, 0), here);
	raw(__NR_mlock, (long)memory, PAGE, 0, 0, 0, 0);
	check("a locked page", moved(memory, there, MPOL_MF_MOVE), there);
	check("bytes that changed", wrong_bytes(memory, 1), 0);
}

/* Pages that a child shares since the fork. */
static void check_shared(int here, int there, int privileged)
{
	char *memory = map(2);
	char *twice[2] = { memory + PAGE, memory + PAGE };
	int nodes[2] = { there, there }, status[2] = { NEVER_WRITTEN, NEVER_WRITTEN };
	int hold;

	touch(memory, 2);
	moved(memory, here, MPOL_MF_MOVE);
	moved(memory + PAGE, here, MPOL_MF_MOVE);

	long child = fork_sharer(&hold);

	check("a shared page, to its own node", moved(memory, here, MPOL_MF_MOVE), here);
	check("a page of a child", status_of(child, memory, NULL, 0), here);
	check("MOVE_ALL for those who may, -EPERM for others",
	      moved(memory, here, MPOL_MF_MOVE_ALL), privileged ? here : -EPERM);
	if (here != there) {
		check("a shared page", moved(memory, there, MPOL_MF_MOVE), -EACCES);
		if (privileged) {
			check("a shared page, by MOVE_ALL", moved(memory, there, MPOL_MF_MOVE_ALL),
			      there);
			check("the child's has moved as well", status_of(child, memory, NULL, 0),
			      there);
		}
		*(volatile char *)memory = memory[0];
		check("a copy made by writing, of us alone", moved(memory, there, MPOL_MF_MOVE),
		      there);
	} else {
		leave_out("a shared page that would have to move");
	}
	end_sharer(child, hold);
	check("a page of a child that is gone", status_of(child, memory, NULL, 0), -ESRCH);
	if (here != there) {
		check("a page named twice", move_pages(0, 2, twice, nodes, status, MPOL_MF_MOVE), 0);
		check("its first mention", status[0], there);
		check("its second mention", status[1], -EBUSY);
	} else {
		leave_out("a page named twice");
	}
	check("bytes that changed", wrong_bytes(memory, 2), 0);
}

/* Calls that are refused, and what has been done by then. */
static void check_refusals(int here)
{
	char *memory = map(2);
	char *pages[2] = { memory, memory + PAGE };
	char *array = map(2);
	char **last = (char **)(array + PAGE) - 1;
	int status[2] = { NEVER_WRITTEN, NEVER_WRITTEN };
	int nodes[2] = { here, MAX_NODES };

	touch(memory, 2);
	raw(__NR_munmap, (long)array + PAGE, PAGE, 0, 0, 0, 0);
	check("no page at all", move_pages(0, 0, NULL, NULL, NULL, 0), 0);
	check("unknown flags", move_pages(0, 1, pages, NULL, status, 1), -EINVAL);
	check("no such process", move_pages((1 << 22) + 1, 1, pages, NULL, status, 0), -ESRCH);
	check("unknown flags are seen first", move_pages((1 << 22) + 1, 1, pages, NULL, status, 1),
	      -EINVAL);
	check("pages that cannot be read", move_pages(0, 1, NULL, NULL, status, 0), -EFAULT);
	check("nodes that cannot be read", move_pages(0, 1, pages, (int *)1, status, 0), -EFAULT);
	check("status that cannot be written", move_pages(0, 1, pages, NULL, NULL, 0), -EFAULT);
	last[0] = memory;
	check("more pages than there can be", move_pages(0, -1UL, last, NULL, status, 0), -EFAULT);
	check("a node that cannot be", moved(memory, -1, 0), -ENODEV);
	moved(memory, here, MPOL_MF_MOVE);
	status[0] = NEVER_WRITTEN;
	check("a good node, then one that cannot be",
	      move_pages(0, 2, pages, nodes, status, MPOL_MF_MOVE), -ENODEV);
	check("what came before it was done", status[0], here);
	check("what came after was not", status[1], NEVER_WRITTEN);
}

/* Many pages over all nodes in turn, by one call. */
static void check_many(const int *known, int count)
{
	static char *pages[PAGES];
	static int nodes[PAGES], status[PAGES];
	char *memory = map(PAGES);
	long wrong = 0, elsewhere = 0;

	touch(memory, PAGES);
	for (int i = 0; i < PAGES; i++) {
		pages[i] = memory + i * PAGE;
		nodes[i] = known[i % count];
		status[i] = NEVER_WRITTEN;
	}
	check("many pages", move_pages(0, PAGES, pages, nodes, status, MPOL_MF_MOVE), 0);
	for (int i = 0; i < PAGES; i++) {
		wrong += status[i] != nodes[i];
		elsewhere += where(pages[i]) != nodes[i];
	}
	check("of them with another status than their node", wrong, 0);
	check("of them found elsewhere afterwards", elsewhere, 0);
	check("bytes that changed", wrong_bytes(memory, PAGES), 0);
}

int main(void)
{
	int nodes[MAX_NODES];
	int count = read_nodes(nodes);

	if (count == 0) {
		printf("this kernel does not tell which nodes it has: it is built without NUMA\n");
		return 2;
	}
	printf("%d node%s, %s\n", count, count == 1 ? "" : "s",
	       may_move_all() ? "MOVE_ALL allowed" : "MOVE_ALL not allowed");
	check_kinds(nodes[0], nodes[count - 1]);
	check_shared(nodes[0], nodes[count - 1], may_move_all());
	check_refusals(nodes[0]);
	check_many(nodes, count);
	printf("%d checks, %d failed, %d left out\n", checks, failed, left_out);
	return failed != 0;
}
