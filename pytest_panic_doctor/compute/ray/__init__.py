"""Computing on a Ray cluster.

`client` is the pytest side, `driver` the process that uses Ray and the only module that imports it, `task` what runs on
a node. Ray schedules tasks by their cores and memory, and retries those that are lost. It ends its driver's process
when it loses the cluster, tries for minutes to reach a missing one, and prints freely: so the driver is a separate
process.
"""
