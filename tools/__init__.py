"""Makes the generated parts of the documentation; nothing here is installed."""
