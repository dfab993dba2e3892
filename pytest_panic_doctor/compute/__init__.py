"""Computing diagrams: child processes, the memory budget that they share, and Ray clusters."""
