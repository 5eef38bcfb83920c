"""Recipe of the model organisms: tiny checkpoints that show the multimodal safety gap."""
