"""Settings, topics, local servers, metrics and the command line: what surrounds the running system."""
