"""Where events go. Each module is one sink and knows no other."""
