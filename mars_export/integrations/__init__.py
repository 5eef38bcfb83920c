"""Places to deploy to and tools to work with; they import the core, never the other way round."""
