//! How a node is named in its certificate: `node:<name>` as the common name.

/// A text cannot name a node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` cannot name a node: use 1 to 63 of a-z, 0-9 and '-', and not `controller`")]
pub struct NodeNameError(String);

const PREFIX: &str = "node:";

/// The common name of a node's certificate.
pub(super) fn common_name(node: &str) -> Result<String, NodeNameError> {
    if is_node(node) {
        Ok(format!("{PREFIX}{node}"))
    } else {
        Err(NodeNameError(node.chars().take(80).collect()))
    }
}

/// The node that a common name stands for; `None` when it stands for something else.
pub(super) fn node_of(common_name: &str) -> Option<&str> {
    common_name.strip_prefix(PREFIX).filter(|node| is_node(node))
}

/// The same rule as for the fabric's topics: a name is one level of them, and `controller`
/// is the controller's own.
fn is_node(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        && text != "controller"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_common_name_stands_for_the_node_that_it_was_made_of() {
        assert_eq!(common_name("edge-a").as_deref(), Ok("node:edge-a"));
        assert_eq!(node_of("node:edge-a"), Some("edge-a"));
    }

    #[test]
    fn what_is_no_topic_level_names_no_node() {
        let long = "a".repeat(64);
        for text in ["", "Edge", "a/b", "a b", "é", "+", "a\0", "controller", &long] {
            assert!(common_name(text).is_err(), "{text}");
            assert_eq!(node_of(&format!("node:{text}")), None, "{text}");
        }
        assert_eq!(node_of("edge-a"), None);
    }
}
