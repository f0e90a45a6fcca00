"""`smoothcert nightly` and `smoothcert accept`: a suite night by night, and its history.

night.py       a night: certify, judge, record, tell
judge.py       an entry: its run against its baseline, its gates, its pages
sentences.py   a night in words
history.py     OUTPUT/history: nights and accepted runs, published once; which run is the baseline
records.py     what the files of the history hold
accept.py      a run becomes the baseline
page.py        the page about all nights; plots.py draws its curves
notify.py      the verdict to a webhook

Certifying belongs to certify; what is compared, and what gates are, to compare.
"""
