"""What the pages of `report`, `compare` and `nightly` share.

exhibits.py      one image of a run: its votes, and where a patch hurts most
pictures.py      the image itself, read from its tar
patches.py       images whose prediction a patch changed
drawing.py       pictures and strips of votes, as they stand in a page
class_names.py   names of classes
plotting.py      curves as SVG, in the colours of the page
rendering.py     templates, and texts for them
"""
