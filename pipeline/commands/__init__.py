"""The arguments of each command: a file for each family of commands.

What a command does belongs to the room that it calls, which is imported when the command runs.
"""
