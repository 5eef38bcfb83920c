"""The steered directory: writer, manifest, digests."""
