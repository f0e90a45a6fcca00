"""What each ablation shows, in pixels and tokens, and which ablations a patch can touch.

Pure geometry. How networks compute ablations belongs to votes; what touched ablations mean for a prediction belongs
to certificates.
"""
