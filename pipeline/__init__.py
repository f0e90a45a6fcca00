"""What the user runs: the commands, and the driver that shares the work of a job among machines.

The only place that uses Ray. What one machine computes belongs to workers.
"""
