-- Tenants' volumes: where each is, and whose it is at the moment.
CREATE TABLE volume (
    tenant    TEXT NOT NULL,
    name      TEXT NOT NULL,
    -- With its container, or where the last one was.
    node      TEXT NOT NULL,
    -- The container that has it.
    container TEXT,
    created   TEXT NOT NULL,
    PRIMARY KEY (tenant, name)
) STRICT, WITHOUT ROWID;

-- A volume belongs to one container for as long as that exists, and is where that is.
CREATE TRIGGER volumes_taken AFTER INSERT ON compute BEGIN
    SELECT RAISE(ABORT, 'a volume is in use')
        FROM volume, json_each(NEW.spec, '$.volumes') AS wanted
        WHERE volume.tenant = NEW.tenant AND volume.name = wanted.value ->> '$.name'
            AND volume.container IS NOT NULL;
    INSERT INTO volume (tenant, name, node, container, created)
        SELECT NEW.tenant, wanted.value ->> '$.name', NEW.node, NEW.id, NEW.created
        FROM json_each(NEW.spec, '$.volumes') AS wanted WHERE true
        ON CONFLICT (tenant, name) DO UPDATE SET node = NEW.node, container = NEW.id;
END;
CREATE TRIGGER volumes_follow AFTER UPDATE OF node ON compute WHEN NEW.node <> OLD.node BEGIN
    UPDATE volume SET node = NEW.node WHERE container = NEW.id;
END;
CREATE TRIGGER volumes_free AFTER DELETE ON compute BEGIN
    UPDATE volume SET container = NULL WHERE container = OLD.id;
END;
