"""Suites, judges and steered checkpoints in inspect_ai.

`registry` is the entry point that inspect_ai loads: `tasks` are the suites, `scorers` the judges,
`provider` a model API for steered checkpoints. `messages` turns requests into conversations and
back.
"""
