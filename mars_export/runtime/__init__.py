"""The host: the part of a modeling file that is the same for every method and model family.

guard.py loads steered or not at all, trace.py records, positions.py says which columns are steered,
host.py puts a method's rule into the native classes; family.py.j2 names those classes.
"""
