"""From a base model and prompts to directions, shifts and a layer."""
