"""Kits: what is particular to one sort of document, such as its instruction pairs and its verifier."""
