/* Makes calls that the emulator answers while a timer sends signals.
 *
 *     signals CALLS MICROSECONDS restart|interrupt
 *
 * Prints how many signals were handled and how many calls failed with EINTR. The handler has
 * SA_RESTART, or it has not. Any other failure ends the program.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

static volatile sig_atomic_t signals;

static void count(int number)
{
	(void)number;
	signals++;
}

int main(int argc, char **argv)
{
	if (argc != 4)
		return 2;
	long calls = atol(argv[1]), interrupted = 0;
	struct sigaction action = { .sa_handler = count };
	struct itimerval timer = { 0 };

	if (!strcmp(argv[3], "restart"))
		action.sa_flags = SA_RESTART;
	timer.it_value.tv_usec = timer.it_interval.tv_usec = atol(argv[2]);
	if (sigaction(SIGALRM, &action, NULL) || setitimer(ITIMER_REAL, &timer, NULL))
		return 1;
	for (long call = 0; call < calls; call++) {
		if (!syscall(SYS_get_mempolicy, NULL, NULL, 0, NULL, 0))
			continue;
		if (errno != EINTR)
			return 1;
		interrupted++;
	}
	timer.it_value.tv_usec = timer.it_interval.tv_usec = 0;
	if (setitimer(ITIMER_REAL, &timer, NULL))
		return 1;
	printf("%d %ld\n", (int)signals, interrupted);
	return 0;
}
