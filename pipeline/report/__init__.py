"""`smoothcert report`: one page about a run, for a person; the same figures as Markdown and JSON.

    figures.py   what all images say            sample.py    what a sample of their votes says
    gallery.py   the most fragile and the sturdiest images
    plots.py     curves and maps as SVG         page.py      figures to HTML and Markdown
    report.py    ties them together             record.py    figures to JSON

The figures are plain functions that return data. Comparisons of two runs belong to compare.
"""
