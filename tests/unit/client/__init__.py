"""The client SDK, against scripted services over real channels."""
