"""The store's RPCs, as functions of an engine; keeping.py makes methods of them."""
