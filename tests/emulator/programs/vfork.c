/* A child of vfork(2) that runs in its parent's memory until it is told to become `cat`. */
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void)
{
	char byte;
	pid_t child = vfork();

	if (child == 0) {
		if (write(1, "v", 1) != 1 || read(0, &byte, 1) != 1)
			_exit(1);
		execl("/bin/cat", "cat", (char *)0);
		_exit(1);
	}
	return waitpid(child, NULL, 0) != child;
}
