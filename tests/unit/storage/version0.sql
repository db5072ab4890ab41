-- A file as no release ever wrote it: an older schema, for the test that such files are brought up to date.
PRAGMA application_id = 1281453669;
PRAGMA user_version = 0;
PRAGMA journal_mode = WAL;
CREATE TABLE jobs (number INTEGER PRIMARY KEY, name TEXT NOT NULL, lane TEXT NOT NULL, kind TEXT NOT NULL, body BLOB);
INSERT INTO jobs VALUES (1, 'one', 'query', 'send_mail', '{"to":"ada"}');
INSERT INTO jobs VALUES (2, 'two', 'query', 'send_mail', '{"to":"bob"}');
INSERT INTO jobs VALUES (5, 'five', 'prompt', 'ask', '{}');
