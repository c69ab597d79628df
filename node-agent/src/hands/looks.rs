//! A look at the kernel, as the machine wants it.

use godwit_proto::container::Execution;
use godwit_proto::migration::{Input, Sight};

use super::{CallError, Tools, told};
use crate::driver::Driver;
use crate::engine::Engine;

/// Looks and tells the driver. A look that fails tells nothing: a later one will.
pub(super) async fn look<E: Engine>(tools: &Tools<E>, driver: &Driver, number: u64) {
    match sights(tools, number).await {
        Ok(seen) => driver.feed(seen).await,
        Err(error) => {
            tracing::warn!(error = told(&error), "cannot look at the containers");
            driver.feed(Input::Unseen).await;
        }
    }
}

async fn sights<E: Engine>(tools: &Tools<E>, look: u64) -> Result<Input, CallError> {
    let (mut sights, mut strangers) = (Vec::new(), Vec::new());
    for copy in tools.engine.observe().await? {
        let exit_code = copy.exit_code.and_then(|code| i32::try_from(code).ok());
        let is_guarded = copy.never_opened;
        let sight = Sight { execution: copy.execution, is_guarded, exit_code };
        if tools.is_ledgered(copy.id) {
            sights.push((copy.id, sight));
        } else if let Some(spec) = tools.engine.spec(copy.id).await? {
            strangers.push((Box::new(spec), sight));
        } else if sight.execution == Execution::Absent {
            // A mark of a container that neither the ledger nor podman remembers.
            tools.engine.forget(copy.id).await?;
        } else {
            tracing::warn!(container = %copy.id, "the engine does not say what this container is");
        }
    }
    Ok(Input::Seen { look, sights, strangers })
}
