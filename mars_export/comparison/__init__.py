"""Methods and baselines side by side on one model: what was measured, and its card."""
