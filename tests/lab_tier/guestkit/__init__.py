"""What the lab's tests work with: pages of memory, forked children, settings of the guest."""
