//! Ports that nodes open for containers: no two containers have the same one, nor one that a
//! program of a node holds.

use std::time::Duration;

use futures_util::future::join_all;
use godwit_proto::frame::{NodeAnswer, NodeRequest};
use godwit_proto::id::{NodeId, Tenant};
use godwit_proto::overlay::{Protocol, Published};

use super::{Service, unknown_node};
use crate::placement::NodeState;
use crate::refusal::Refusal;
use crate::store::ContainerRow;

/// How long nodes may take to say who holds a port; those that are silent are not waited for.
const ANSWER: Duration = Duration::from_secs(3);

/// What nodes need for containers' networks: names, and VXLAN.
const OWN: [(Protocol, u16); 3] = [(Protocol::Udp, 53), (Protocol::Tcp, 53), (Protocol::Udp, 4789)];

impl Service {
    /// Refuses ports that somebody has already, by the name of who has it.
    pub(super) fn free_ports(
        &self,
        tenant: &Tenant,
        ports: &[Published],
        rows: &[ContainerRow],
    ) -> Result<(), Refusal> {
        for (at, port) in ports.iter().enumerate() {
            if OWN.contains(&(port.protocol, port.port)) {
                return Err(taken(port, "the fabric itself, on every node"));
            }
            for node in &port.nodes {
                self.parts.registry.facts(node).ok_or_else(|| unknown_node(node.as_str()))?;
            }
            if ports[..at].iter().any(|other| clash(other, port)) {
                return Err(taken(port, "this container, twice"));
            }
            for row in rows {
                if row.spec.ports.iter().any(|other| clash(other, port)) {
                    // Whose it is, is no other tenant's business.
                    let holder = match row.spec.tenant == *tenant {
                        true => format!("the container {}", row.spec.name),
                        false => "another tenant's container".to_owned(),
                    };
                    return Err(taken(port, &holder));
                }
            }
        }
        Ok(())
    }

    /// Refuses ports that a program of a node holds, by its name. Asks the nodes.
    pub(super) async fn nodes_have_them_free(&self, ports: &[Published]) -> Result<(), Refusal> {
        let nodes = self.parts.registry.all_facts();
        let asked = nodes.iter().filter(|node| node.state == NodeState::Online).map(|node| {
            let wanted: Vec<_> = ports
                .iter()
                .filter(|port| port.nodes.is_empty() || port.nodes.contains(&node.node))
                .map(|port| (port.protocol, port.port))
                .collect();
            async move {
                if wanted.is_empty() {
                    return None;
                }
                let asking = self.parts.core.ask_node(&node.node, NodeRequest::Ports(wanted));
                let answer = tokio::time::timeout(ANSWER, asking).await.ok()?.ok()?;
                Some((&node.node, answer))
            }
        });
        for (node, answer) in join_all(asked).await.into_iter().flatten() {
            let NodeAnswer::Ports(held) = answer else { continue };
            for (protocol, port, program) in held {
                let is_it = |it: &&Published| it.protocol == protocol && it.port == port;
                if let Some(port) = ports.iter().find(is_it) {
                    return Err(taken(port, &format!("{program} on {node}")));
                }
            }
        }
        Ok(())
    }
}

/// The same port of a node.
fn clash(one: &Published, other: &Published) -> bool {
    let share = |one: &[NodeId], other: &[NodeId]| one.iter().any(|node| other.contains(node));
    let meet = one.nodes.is_empty() || other.nodes.is_empty() || share(&one.nodes, &other.nodes);
    one.protocol == other.protocol && one.port == other.port && meet
}

fn taken(port: &Published, holder: &str) -> Refusal {
    Refusal::new(
        "port-taken",
        format!("port {}/{} is in use by {holder}", port.port, port.protocol),
        "publish another port, or on other nodes: -p PORT:PORT@NODE",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_clash_where_a_node_would_open_both() {
        let clashes = |one: &str, other: &str| {
            let (one, other) = (one.parse().unwrap(), other.parse().unwrap());
            clash(&one, &other) && clash(&other, &one)
        };
        assert!(clashes("80", "80:8080"));
        assert!(clashes("80@a", "80"));
        assert!(clashes("80@a,b", "80@b"));
        assert!(!clashes("80@a", "80@b"));
        assert!(!clashes("80", "80/udp"));
        assert!(!clashes("80", "81:80"));
    }
}
