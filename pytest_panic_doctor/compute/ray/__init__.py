"""Computing on a Ray cluster.

`link` is what the pytest side has of it, `driver` the process that speaks to Ray, and the only module that imports it,
`task` what runs on a node, `packing` what fits where. Ray ends the process of its driver where it loses the cluster,
tries for minutes to reach one that is not there, and prints as it likes: so that is a process of its own.
"""
