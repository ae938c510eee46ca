"""What ``benchmarks/alignment.py`` measures with: pairs of scans whose true map is known, and contestants.

``sources`` reads scans, ``kinds`` says what is done to one of them, ``pairs`` does it, ``truth`` fits maps to labels,
``contestants`` align, ``score`` compares with the truth, ``summary`` and ``pictures`` draw.
World coordinates are RAS mm; a matrix maps the fixed image's world to the moving image's.
"""
