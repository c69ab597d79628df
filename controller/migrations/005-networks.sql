-- Tenants' networks over VXLAN, and the nodes' numbers in them.
CREATE TABLE network (
    -- Never given again: what is left of a network somewhere must not meet another.
    vni     INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant  TEXT NOT NULL,
    name    TEXT NOT NULL,
    -- Its subnets, IPv4 first.
    subnets TEXT NOT NULL CHECK (json_valid(subnets)),
    -- The largest packet, in bytes.
    mtu     INTEGER NOT NULL,
    -- The node through which its containers reach the world.
    exit    TEXT,
    created TEXT NOT NULL,
    UNIQUE (tenant, name)
) STRICT;

-- A node's number is its for ever: its address in every network follows from it.
CREATE TABLE station (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    node   TEXT NOT NULL UNIQUE
) STRICT;
