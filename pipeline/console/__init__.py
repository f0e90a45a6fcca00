"""How output looks: lines, tables, numbers, colour and progress bars.

What is said belongs to the room that says it.
"""
