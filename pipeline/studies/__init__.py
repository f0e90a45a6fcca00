"""Studies of a run over the fleet: which images, the plan, the driver. Each kind's answer is a room of its own.

What is measured belongs to workers/studies/.
"""
