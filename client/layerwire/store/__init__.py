"""The store's RPCs as functions of an engine; store_methods.py makes methods of them."""
