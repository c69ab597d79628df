//! `godwit version`.

use serde_json::json;

use super::Context;
use crate::error::Failure;
use crate::render::Format;

const CLIENT: &str = env!("CARGO_PKG_VERSION");

/// Shows both versions. Without a controller, this program's own and the failure.
pub(super) async fn version(context: &Context, format: &Format) -> Result<(), Failure> {
    let controller = context.client.version().await;
    if controller.is_err() && matches!(format, Format::Table) {
        context.screen.line(&format!("godwit      {CLIENT}"))?;
    }
    let controller = controller?;
    let both = json!({
        "client": {"version": CLIENT},
        "controller": controller,
        "host": context.client.host().to_string(),
    });
    context.screen.object(format, &both, || {
        let field = |name: &str| controller[name].as_str().unwrap_or("-").to_owned();
        let (version, api, fabric) = (field("version"), field("api"), field("fabric"));
        let host = context.client.host();
        Ok(format!(
            "godwit      {CLIENT}\ncontroller  {version} at {host}, API {api}, fabric {fabric}"
        ))
    })
}
