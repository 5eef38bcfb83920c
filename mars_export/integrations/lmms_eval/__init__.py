"""Utility benchmarks through lmms-eval: running them on both arms and comparing what it logged."""
