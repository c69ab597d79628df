-- The three founding tables (compute, image, device), the history of moves, and
-- the record of what was decided. Every row has its tenant, times are RFC 3339 UTC.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

-- Containers and who owns them.
CREATE TABLE compute (
    id               TEXT PRIMARY KEY,
    tenant           TEXT NOT NULL,
    name             TEXT NOT NULL,
    spec             TEXT NOT NULL CHECK (json_valid(spec)),
    node             TEXT NOT NULL,
    epoch_generation INTEGER NOT NULL,
    epoch_counter    INTEGER NOT NULL,
    intent           TEXT NOT NULL,
    state            TEXT NOT NULL,
    error            TEXT,
    exit_code        INTEGER,
    since            TEXT NOT NULL,
    created          TEXT NOT NULL,
    ip               TEXT GENERATED ALWAYS AS (json_extract(spec, '$.address.ip')) STORED,
    UNIQUE (tenant, name)
) STRICT;
-- An address belongs to one container for as long as that exists.
CREATE UNIQUE INDEX compute_ip ON compute (ip);
CREATE INDEX compute_node ON compute (node);

-- Images in the controller's own store; the archive lies beside, named by its id.
CREATE TABLE image (
    tenant        TEXT NOT NULL,
    id            TEXT NOT NULL,
    names         TEXT NOT NULL CHECK (json_valid(names)),
    arch          TEXT NOT NULL,
    os            TEXT NOT NULL,
    size_bytes    INTEGER NOT NULL,
    archive_bytes INTEGER NOT NULL,
    created       TEXT NOT NULL,
    PRIMARY KEY (tenant, id)
) STRICT;

-- Nodes as they were last heard of.
CREATE TABLE device (
    node    TEXT PRIMARY KEY,
    tenant  TEXT NOT NULL,
    state   TEXT NOT NULL,
    since   TEXT NOT NULL,
    info    TEXT CHECK (info IS NULL OR json_valid(info)),
    heard   TEXT NOT NULL
) STRICT;

-- Attempts to move a container: the live ones and the history.
CREATE TABLE migration (
    id                TEXT PRIMARY KEY,
    container         TEXT NOT NULL,
    tenant            TEXT NOT NULL,
    name              TEXT NOT NULL,
    epoch_generation  INTEGER NOT NULL,
    epoch_counter     INTEGER NOT NULL,
    source            TEXT NOT NULL,
    target            TEXT NOT NULL,
    mode              TEXT NOT NULL,
    bwlimit           INTEGER,
    opener_generation INTEGER NOT NULL,
    opener_nonce      INTEGER NOT NULL,
    decider           TEXT NOT NULL CHECK (json_valid(decider)),
    settled           INTEGER NOT NULL,
    phase             TEXT NOT NULL,
    outcome           TEXT,
    reason            TEXT,
    remedy            TEXT,
    phases            TEXT NOT NULL CHECK (json_valid(phases)),
    bytes             INTEGER NOT NULL,
    wire_bytes        INTEGER NOT NULL,
    gap_ms            INTEGER,
    predicted         TEXT CHECK (predicted IS NULL OR json_valid(predicted)),
    started           TEXT NOT NULL,
    ended             TEXT,
    UNIQUE (container, epoch_generation, epoch_counter)
) STRICT;
CREATE INDEX migration_live ON migration (settled) WHERE settled = 0;
CREATE INDEX migration_started ON migration (started);

-- The commit point: the first verdict of an epoch stands.
CREATE TABLE verdict (
    container        TEXT NOT NULL,
    epoch_generation INTEGER NOT NULL,
    epoch_counter    INTEGER NOT NULL,
    tenant           TEXT NOT NULL,
    outcome          TEXT NOT NULL CHECK (outcome IN ('commit', 'abort')),
    run_generation   INTEGER NOT NULL,
    run_nonce        INTEGER NOT NULL,
    decided          TEXT NOT NULL,
    PRIMARY KEY (container, epoch_generation, epoch_counter)
) STRICT;

-- What became of a verdict when a node could not follow it; rows are only added.
CREATE TABLE amendment (
    number           INTEGER PRIMARY KEY,
    container        TEXT NOT NULL,
    epoch_generation INTEGER NOT NULL,
    epoch_counter    INTEGER NOT NULL,
    tenant           TEXT NOT NULL,
    kind             TEXT NOT NULL
        CHECK (kind IN ('returned', 'salvaged', 'rolled-back', 'overruled', 'lost')),
    node             TEXT,
    run_generation   INTEGER NOT NULL,
    run_nonce        INTEGER NOT NULL,
    why              TEXT NOT NULL,
    recorded         TEXT NOT NULL
) STRICT;
CREATE INDEX amendment_epoch ON amendment (container, epoch_generation, epoch_counter);

-- Requests that came over MQTT, so that each is done once.
CREATE TABLE request (
    tenant  TEXT NOT NULL,
    id      TEXT NOT NULL,
    verb    TEXT NOT NULL,
    subject TEXT,
    status  TEXT NOT NULL,
    reply   TEXT NOT NULL CHECK (json_valid(reply)),
    created TEXT NOT NULL,
    PRIMARY KEY (tenant, id)
) STRICT;
CREATE INDEX request_created ON request (created);
