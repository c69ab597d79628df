//! Tenants' networks, and the nodes' numbers in them.

use std::collections::BTreeMap;

use godwit_proto::id::{NodeId, Tenant};
use godwit_proto::overlay::Vni;
use ipnet::IpNet;
use jiff::Timestamp;
use rusqlite::{Result, Row, params};

use super::{Store, StoreError, convert};

/// A network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkRow {
    /// Its number on the wire.
    pub vni: Vni,
    /// Whose it is.
    pub tenant: Tenant,
    /// What its tenant calls it.
    pub name: String,
    /// Its subnets, IPv4 first.
    pub subnets: Vec<IpNet>,
    /// The largest packet, in bytes.
    pub mtu: u16,
    /// The node through which its containers reach the world.
    pub exit: Option<NodeId>,
    /// When it was made.
    pub created: Timestamp,
}

impl Store {
    /// Every network.
    ///
    /// # Errors
    /// [`StoreError::Query`].
    pub fn networks(&self) -> Result<Vec<NetworkRow>, StoreError> {
        self.rows("listing networks", "SELECT * FROM network ORDER BY tenant, name", [], read)
    }

    /// The number of the next network: none that ever was.
    ///
    /// # Errors
    /// [`StoreError::Query`].
    pub fn next_vni(&self) -> Result<Vni, StoreError> {
        let sql = "SELECT seq FROM sqlite_sequence WHERE name = 'network'";
        let last = self.row("numbering a network", sql, [], |row| row.get::<_, u32>(0))?;
        Ok(last.map_or(Vni::FIRST, |last| Vni(last + 1)))
    }

    /// Adds a network.
    ///
    /// # Errors
    /// [`StoreError::Taken`] when its number or its tenant's name is in use.
    pub fn insert_network(&self, row: &NetworkRow) -> Result<(), StoreError> {
        self.write(
            "adding a network",
            "INSERT INTO network (vni, tenant, name, subnets, mtu, exit, created)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                row.vni.0,
                row.tenant.as_str(),
                row.name,
                convert::to_json(&row.subnets),
                row.mtu,
                row.exit.as_ref().map(NodeId::as_str),
                convert::at(row.created),
            ],
        )
        .map(drop)
    }

    /// Has another node be the network's exit.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when there is no such network.
    pub fn set_exit(&self, vni: Vni, exit: &NodeId) -> Result<(), StoreError> {
        let sql = "UPDATE network SET exit = ?2 WHERE vni = ?1";
        self.write_one("choosing an exit", sql, params![vni.0, exit.as_str()])
    }

    /// Forgets a network; absent is success.
    ///
    /// # Errors
    /// [`StoreError::Query`].
    pub fn delete_network(&self, vni: Vni) -> Result<(), StoreError> {
        self.write("deleting a network", "DELETE FROM network WHERE vni = ?1", [vni.0]).map(drop)
    }

    /// Every node's number: given at the first time of asking, kept for ever.
    ///
    /// # Errors
    /// [`StoreError::Query`].
    pub fn stations(&self, nodes: &[NodeId]) -> Result<BTreeMap<NodeId, u32>, StoreError> {
        let all = "SELECT number, node FROM station";
        let read = |row: &Row<'_>| Ok((convert::text(row, "node")?, row.get("number")?));
        let known: BTreeMap<_, _> =
            self.rows("reading nodes' numbers", all, [], read)?.into_iter().collect();
        let mut is_new = nodes.iter().filter(|node| !known.contains_key(*node)).peekable();
        if is_new.peek().is_none() {
            return Ok(known);
        }
        for node in is_new {
            let add = "INSERT INTO station (node) VALUES (?1) ON CONFLICT (node) DO NOTHING";
            self.write("numbering a node", add, [node.as_str()])?;
        }
        Ok(self.rows("reading nodes' numbers", all, [], read)?.into_iter().collect())
    }
}

fn read(row: &Row<'_>) -> Result<NetworkRow> {
    let exit: Option<String> = row.get("exit")?;
    Ok(NetworkRow {
        vni: Vni(row.get("vni")?),
        tenant: convert::text(row, "tenant")?,
        name: row.get("name")?,
        subnets: convert::json(row, "subnets")?,
        mtu: row.get("mtu")?,
        exit: exit.and_then(|node| node.parse().ok()),
        created: convert::text(row, "created")?,
    })
}
