"""The whole service, called as users call it: a server of its own, the SDK, and stubs of another client."""
