"""A model organism with real language, made from SmolLM2-135M-Instruct."""
