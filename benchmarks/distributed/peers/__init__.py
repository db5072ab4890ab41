"""The peers, a module each; the extra `peers` installs them."""
