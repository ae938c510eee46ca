"""What ``benchmarks/portfolio.py`` measures with: pairs of many anatomies on one grid, and deformable contestants.

``pair`` says what a pair is, ``cohorts`` makes pairs of real scans and ``made`` of anatomies whose motion is an
equation, ``rows`` names them, ``contestants`` register in processes of their own, ``score`` measures what they found,
``table`` keeps the rows, and ``summary`` writes the page and the figure.
"""
