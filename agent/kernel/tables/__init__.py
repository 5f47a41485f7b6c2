"""Tables of the kernel: one adapter for each kind of object that the agent keeps."""
