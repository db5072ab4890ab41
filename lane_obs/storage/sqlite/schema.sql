-- Everything is text, so that people can read it with any SQLite client.
-- fixed_sum, state_sum, sum: CRC-32 of the columns before them, so that a damaged row is not taken for a good one;
-- state_sum begins behind fixed_sum, with the id before that.

CREATE TABLE ledger (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  uid TEXT NOT NULL,
  created_at REAL NOT NULL,
  commits INTEGER NOT NULL,
  commands INTEGER NOT NULL,
  letters INTEGER NOT NULL,
  total INTEGER NOT NULL,
  last_seq INTEGER NOT NULL
) STRICT;

CREATE TABLE commands (
  seq INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  lane TEXT NOT NULL,
  command_type TEXT NOT NULL,
  payload BLOB NOT NULL,
  options TEXT NOT NULL,
  deadline REAL,
  key TEXT,
  trace TEXT,
  submitted_at REAL NOT NULL,
  fixed_sum INTEGER NOT NULL,
  state TEXT NOT NULL,
  attempt INTEGER NOT NULL,
  not_before REAL,
  updated_at REAL NOT NULL,
  deaths INTEGER NOT NULL,
  last_error_type TEXT,
  last_error TEXT,
  state_sum INTEGER NOT NULL
) STRICT;

CREATE TABLE letters (
  place INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  seq INTEGER NOT NULL,
  lane TEXT NOT NULL,
  command_type TEXT NOT NULL,
  payload BLOB NOT NULL,
  options TEXT NOT NULL,
  reason TEXT NOT NULL,
  error_type TEXT NOT NULL,
  error TEXT NOT NULL,
  traceback TEXT,
  attempts INTEGER NOT NULL,
  failed_at REAL NOT NULL,
  submitted_at REAL NOT NULL,
  key TEXT,
  trace TEXT,
  sum INTEGER NOT NULL
) STRICT;

-- The ledger tells at each open whether rows were lost. Triggers keep it, so it is right also after changes by hand;
-- but for commands that are added: a trigger would take half as long as their rows, so whoever adds some counts them.

CREATE TRIGGER command_removed AFTER DELETE ON commands BEGIN
  UPDATE ledger SET commands = commands - 1, total = total - old.fixed_sum - old.state_sum;
END;

CREATE TRIGGER command_changed AFTER UPDATE OF seq, fixed_sum, state_sum ON commands BEGIN
  UPDATE ledger SET total = total + new.fixed_sum + new.state_sum - old.fixed_sum - old.state_sum,
    last_seq = max(last_seq, new.seq);
END;

CREATE TRIGGER letter_added AFTER INSERT ON letters BEGIN
  UPDATE ledger SET letters = letters + 1, total = total + new.sum;
END;

CREATE TRIGGER letter_removed AFTER DELETE ON letters BEGIN
  UPDATE ledger SET letters = letters - 1, total = total - old.sum;
END;

CREATE TRIGGER letter_changed AFTER UPDATE OF sum ON letters BEGIN
  UPDATE ledger SET total = total + new.sum - old.sum;
END;
