-- When the parts of a hand-over came about: [{"moment": WORD, "us": MICROSECONDS}, ...] by the
-- controller's clock, in the order of time.
ALTER TABLE migration ADD COLUMN timeline TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(timeline));
