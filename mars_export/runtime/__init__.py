"""The host, `steering_host.py` of a checkpoint: the same for every model family.

guard.py loads steered or not at all, trace.py records, positions.py says which columns are steered,
layer.py runs the rule in a layer, host.py puts it into the native classes that family.py.j2 names.
"""
