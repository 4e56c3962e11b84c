"""StoreService at the gateway."""
