"""Engines: images to votes and margins, and the differentiable forms with which networks are trained.

Also the check that an engine computes what timm computes. Building and loading networks belongs to networks; counting
votes belongs to certificates.
"""
