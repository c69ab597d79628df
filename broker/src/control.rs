//! What can be asked of a broker while it runs.

use std::sync::Arc;

use tokio::sync::oneshot;
use tracing::info;

use crate::BrokerError;
use crate::accounts::Files;
use crate::connection::Door;
use crate::core::{Core, Effects, Event, Question};
use crate::listener::{ListenError, Tls};

/// A handle on a broker; a clone is the same.
#[derive(Clone)]
pub struct Control {
    door: Arc<Door>,
    files: Option<Arc<Files>>,
    tls: Option<Arc<Tls>>,
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").finish_non_exhaustive()
    }
}

impl Control {
    pub(crate) fn new(door: Arc<Door>, files: Option<Arc<Files>>, tls: Option<Arc<Tls>>) -> Self {
        Self { door, files, tls }
    }

    /// Accounts or their rules changed: every client is judged anew, and who has no account any
    /// more is cut off.
    pub fn accounts_changed(&self) {
        self.door.admission.forget();
        self.door.lane.send_now(Event::AccountsChanged);
    }

    /// Reads certificates, passwords and rules again; nobody is disconnected whose account stays.
    ///
    /// # Errors
    /// When a file cannot be used; what was read before stays then.
    pub fn reload(&self) -> Result<(), BrokerError> {
        if let Some(tls) = &self.tls {
            tls.reload().map_err(ListenError::from)?;
        }
        if let Some(files) = &self.files {
            files.reload()?;
            self.accounts_changed();
        }
        info!("certificates, accounts and rules read again");
        Ok(())
    }

    /// Asks the core, in its turn; `None` once the broker has stopped.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Core, &mut Effects) -> T + Send + 'static,
    ) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        let ask = move |core: &mut Core, effects: &mut Effects| {
            // Nobody waits for it any more.
            let _ = answer.send(question(core, effects));
        };
        self.door.lane.send_now(Event::Ask(Question(Box::new(ask))));
        tokio::select! {
            answer = answered => answer.ok(),
            () = self.door.stopped.cancelled() => None,
        }
    }
}
