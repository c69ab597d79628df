//! A container's image: fetched once, however many containers want it at the same time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use godwit_image::Layers;
use godwit_proto::frame::Step;
use godwit_proto::id::ImageId;
use godwit_proto::migration::Record;
use godwit_proto::stream::StreamId;
use godwit_proto::topic::Peer;
use tokio::sync::OwnedMutexGuard;

use super::calls::{receive, remove, sweep};
use super::{CallError, Tools};
use crate::engine::{Engine, HeldImage};

/// Has the container's image loaded and named, from `from` if the engine lacks it.
pub(super) async fn require<E: Engine>(
    tools: &Tools<E>,
    record: &Record,
    from: &Peer,
) -> Result<(), CallError> {
    let (wanted, name) = (&record.spec.image, &record.spec.image_name);
    // Two transfers into one file would spoil each other; who comes second finds it loaded.
    let _fetching = tools.fetching.lock(wanted).await;
    let held = tools.engine.images().await?;
    let named = match held.iter().find(|held| held.id == *wanted) {
        Some(held) => held.names.contains(name),
        None => {
            load(tools, record, from, &held).await?;
            false
        }
    };
    if !named {
        // podman looks the image up by its name again when it restores.
        tools.engine.name_image(wanted, name).await?;
    }
    Ok(())
}

/// Removes what a fetch that was given up left: it may be what filled the disk. What another
/// container still fetches stays.
pub(super) async fn forget<E: Engine>(tools: &Tools<E>, wanted: &ImageId) -> Result<(), CallError> {
    match tools.fetching.try_lock(wanted) {
        Some(_fetching) => sweep(tools, &format!("{wanted}.image")).await,
        None => Ok(()),
    }
}

async fn load<E: Engine>(
    tools: &Tools<E>,
    record: &Record,
    from: &Peer,
    held: &[HeldImage],
) -> Result<(), CallError> {
    let image = record.spec.image.clone();
    match parts(tools, record, from, held).await {
        Ok(None) => {}
        Ok(Some(parts)) => match load_from(tools, record, from, parts).await {
            Ok(()) => return Ok(()),
            // A layer may have gone with its image meanwhile.
            Err(error) => tracing::warn!(%image, %error, "its layers do not go with those here"),
        },
        // Not every archive can be taken apart.
        Err(error) => tracing::info!(%image, %error, "it comes whole"),
    }
    load_from(tools, record, from, StreamId::Image(image)).await
}

/// The parts of the image that no image here has; `None` where it is to come whole.
async fn parts<E: Engine>(
    tools: &Tools<E>,
    record: &Record,
    from: &Peer,
    held: &[HeldImage],
) -> Result<Option<StreamId>, CallError> {
    let mut here = BTreeSet::new();
    for image in held {
        here.extend(tools.engine.layers(&image.id).await?);
    }
    if here.is_empty() {
        return Ok(None);
    }
    let image = record.spec.image.clone();
    let file = tools.spool.join(format!("{image}.image-layers"));
    let stream = StreamId::ImageLayers(image.clone());
    receive(tools, record, stream, from, &file, Step::FetchingImage).await?;
    let failed = |source| CallError::File { what: format!("reading {}", file.display()), source };
    let text = tokio::fs::read(&file).await.map_err(failed)?;
    let layers: Vec<String> = serde_json::from_slice(&text).map_err(|e| failed(e.into()))?;
    remove(&file).await?;
    let Some(lacking) = Layers::lacking(&layers, &here) else { return Ok(None) };
    if lacking.count() == layers.len() {
        return Ok(None);
    }
    tracing::info!(%image, layers = layers.len(), lacking = lacking.count(), "only what is lacking comes");
    Ok(Some(StreamId::ImageParts { image, layers: lacking.0 }))
}

async fn load_from<E: Engine>(
    tools: &Tools<E>,
    record: &Record,
    from: &Peer,
    stream: StreamId,
) -> Result<(), CallError> {
    let wanted = &record.spec.image;
    let file = tools.spool.join(format!("{wanted}.image"));
    receive(tools, record, stream, from, &file, Step::FetchingImage).await?;
    let loaded = tools.engine.load_image(&file).await;
    remove(&file).await?;
    match loaded? {
        loaded if loaded == *wanted => Ok(()),
        loaded => Err(CallError::OtherImage { wanted: wanted.clone(), loaded }),
    }
}

/// Who fetches which image.
#[derive(Debug, Default)]
pub(crate) struct ImageLocks(Mutex<BTreeMap<ImageId, Arc<tokio::sync::Mutex<()>>>>);

impl ImageLocks {
    /// Waits until nobody else fetches it. Cancel safe.
    pub(crate) async fn lock(&self, image: &ImageId) -> OwnedMutexGuard<()> {
        let lock = self.locks().entry(image.clone()).or_default().clone();
        lock.lock_owned().await
    }

    /// `None` when somebody fetches it.
    fn try_lock(&self, image: &ImageId) -> Option<OwnedMutexGuard<()>> {
        let lock = self.locks().entry(image.clone()).or_default().clone();
        lock.try_lock_owned().ok()
    }

    /// The locks that somebody holds or waits for.
    fn locks(&self) -> MutexGuard<'_, BTreeMap<ImageId, Arc<tokio::sync::Mutex<()>>>> {
        let mut locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        locks.retain(|_, lock| Arc::strong_count(lock) > 1);
        locks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_image_is_fetched_by_one_at_a_time_and_others_are_not_held_up() {
        let locks = ImageLocks::default();
        let image = |digits: &str| digits.repeat(32).parse::<ImageId>().unwrap();
        let first = locks.lock(&image("ab")).await;
        assert!(locks.try_lock(&image("ab")).is_none(), "it is being fetched");
        assert!(locks.try_lock(&image("cd")).is_some(), "nobody fetches this one");
        let wanted = image("ab");
        let mut second = Box::pin(locks.lock(&wanted));
        assert!(futures_util::poll!(&mut second).is_pending());
        drop(first);
        let second = second.await;
        assert!(locks.try_lock(&image("ab")).is_none(), "the second fetches it now");
        drop(second);
        assert!(locks.try_lock(&image("ab")).is_some());
        assert!(locks.locks().is_empty(), "nothing is kept of those who are done");
    }
}
