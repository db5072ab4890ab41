"""One queue in this process's memory, which several members share."""
