-- Who may come to the broker, and as what.
CREATE TABLE account (
    name      TEXT PRIMARY KEY,
    kind      TEXT NOT NULL,
    -- Of a tenant's derived account: the tenant, and the filters that it may use.
    tenant    TEXT,
    publish   TEXT NOT NULL CHECK (json_valid(publish)),
    subscribe TEXT NOT NULL CHECK (json_valid(subscribe)),
    -- A PHC string; null where a certificate signs in.
    password  TEXT,
    created   TEXT NOT NULL
) STRICT;

-- Tokens by which nodes join; of each only the hash of its secret.
CREATE TABLE invitation (
    hash        TEXT PRIMARY KEY,
    node        TEXT,
    expires     TEXT NOT NULL,
    used        TEXT,
    used_by     TEXT,
    -- The answer is given again to whoever asks the same again: it may have been lost.
    request     TEXT,
    certificate TEXT
) STRICT;

-- Certificates of nodes that were issued.
CREATE TABLE certificate (
    serial  TEXT PRIMARY KEY,
    node    TEXT NOT NULL,
    expires TEXT NOT NULL,
    revoked TEXT
) STRICT;
CREATE INDEX certificate_node ON certificate (node);
