"""Redis and Valkey: the one home of what speaks to them."""
