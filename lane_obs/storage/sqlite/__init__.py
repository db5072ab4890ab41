"""SQLite, through apsw: its only home. Importing this package does not load it; opening a storage does."""
