"""The host: the part of a modeling file that is the same for every method and model family.

guard.py loads steered or not at all, trace.py records, positions.py says which columns are steered,
layer.py runs the rule in a layer, host.py puts it into the native classes that family.py.j2 names.
"""
