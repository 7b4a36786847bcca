"""The command line: parses, calls the client SDK, prints. Nothing here decides what the SDK or a service should."""
