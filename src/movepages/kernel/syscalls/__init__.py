"""The system calls: they copy arguments in, check them in the kernel's order, copy results out."""
