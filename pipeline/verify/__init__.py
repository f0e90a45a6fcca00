"""`smoothcert verify` and `repair`: an independent checker of runs, votes cast again, damaged files moved away.

The checker shares no code with what it checks, so it imports none of workers/ablations, certificates and runs. Only
`--replay`, which votes again (replay.py, sources.py), and `repair` use the other rooms.
"""
