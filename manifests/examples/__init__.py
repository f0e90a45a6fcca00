"""Job files, a training file and a small checkpoint with its card, which the wheel carries for `smoothcert demo`.

No code belongs here.
"""
