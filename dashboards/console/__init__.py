"""The pages that Prometheus itself shows: what they are made of."""
