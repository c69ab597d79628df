-- A container has interfaces, with addresses of either family, where it had one address.
UPDATE compute SET spec = json_remove(
    json_set(spec, '$.interfaces', json_array(json_object(
        'mac', spec -> '$.address.mac',
        'addresses', json_array((spec ->> '$.address.ip') || '/' || (spec ->> '$.address.prefix')),
        'gateways', json(iif(spec ->> '$.address.gateway' IS NULL, '[]',
                             json_array(spec ->> '$.address.gateway')))
    ))),
    '$.address')
WHERE json_type(spec, '$.address') IS NOT NULL;

-- An address belongs to one container for as long as that exists.
DROP INDEX compute_ip;
ALTER TABLE compute DROP COLUMN ip;
CREATE TABLE address (
    ip        TEXT PRIMARY KEY,
    container TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE VIEW addresses_of AS
    SELECT compute.id AS container, substr(net.value, 1, instr(net.value, '/') - 1) AS ip
    FROM compute, json_each(compute.spec, '$.interfaces') AS interface,
         json_each(interface.value, '$.addresses') AS net;
INSERT INTO address (ip, container) SELECT ip, container FROM addresses_of;
CREATE TRIGGER addresses_taken AFTER INSERT ON compute BEGIN
    INSERT INTO address (ip, container)
        SELECT ip, container FROM addresses_of WHERE container = NEW.id;
END;
CREATE TRIGGER addresses_free AFTER DELETE ON compute BEGIN
    DELETE FROM address WHERE container = OLD.id;
END;
