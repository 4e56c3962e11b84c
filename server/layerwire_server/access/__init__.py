"""Who may come in: tokens in a file of hashes, and certificates. It knows no RPC; the gateway asks it."""
