//! The last word on every live move: how far its transfer is stands in no database.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use godwit_proto::id::MigrationId;

use crate::store::AttemptRow;
use crate::view::{MigrationView, Progress};

/// The live moves as they were last told; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Latest {
    moves: Arc<Mutex<BTreeMap<MigrationId, MigrationView>>>,
}

impl Latest {
    /// Takes in an event; a settled move is forgotten, for the database has all of it.
    pub fn note(&self, view: &MigrationView) {
        let mut moves = self.moves.lock().unwrap_or_else(PoisonError::into_inner);
        if view.settled {
            moves.remove(&view.id);
        } else {
            moves.insert(view.id.clone(), view.clone());
        }
    }

    /// A stored move with all that is known of it.
    pub fn view(&self, row: &AttemptRow) -> MigrationView {
        let moves = self.moves.lock().unwrap_or_else(PoisonError::into_inner);
        match moves.get(&row.id).filter(|_| !row.settled) {
            Some(told) => told.clone(),
            None => MigrationView::new(row, Progress::default()),
        }
    }
}
