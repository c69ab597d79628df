//! `godwit migration ls`, `inspect` and `cancel`.

use super::wait::Interrupt;
use super::{Context, items, migrate};
use crate::api::Migration;
use crate::error::Failure;
use crate::render::{Format, cell, maybe, read, state};
use crate::{human, timeline};

/// Lists moves, the newest first.
pub(super) async fn ls(
    context: &Context,
    container: Option<&str>,
    active: bool,
    limit: u32,
    format: &Format,
) -> Result<(), Failure> {
    let limit = limit.to_string();
    let mut query = vec![("limit", limit.as_str())];
    query.extend(container.map(|container| ("container", container)));
    if active {
        query.push(("active", "true"));
    }
    let migrations = items(&context.client, context.client.get(&["migrations"], &query).await?)?;
    let header =
        ["ID", "CONTAINER", "FROM", "TO", "MODE", "STATE", "BYTES", "GAP", "TOTAL", "STARTED"];
    context.screen.list(format, &migrations, header, |migration: Migration| {
        let now = migration.outcome.as_deref().unwrap_or(&migration.phase);
        let words = match migration.percent {
            Some(percent) if !migration.settled => format!("{now} {percent:.0} %"),
            _ => now.to_owned(),
        };
        [
            cell(&migration.id),
            cell(&migration.container),
            maybe(migration.source.clone(), |node| node),
            maybe(migration.target.clone(), |node| node),
            maybe(migration.mode.clone(), |mode| mode),
            state(now, &words),
            maybe(migration.bytes, human::size),
            maybe(migration.gap_ms, human::duration),
            maybe(migration.total_ms(), human::duration),
            maybe(migration.started, |started| format!("{} ago", human::age(started))),
        ]
    })
}

/// Shows where moves spent their time.
pub(super) async fn inspect(
    context: &Context,
    ids: &[String],
    format: &Format,
) -> Result<(), Failure> {
    if !matches!(format, Format::Table) {
        return context.inspect("migrations", ids, format).await;
    }
    for id in ids {
        let migration: Migration = read(&context.client.get(&["migrations", id], &[]).await?)?;
        context.screen.line(&told(context, &migration))?;
    }
    Ok(())
}

fn told(context: &Context, migration: &Migration) -> String {
    let end = match (&migration.outcome, migration.percent) {
        (Some(outcome), _) => outcome.clone(),
        (None, Some(percent)) => format!("{} {percent:.0} %", migration.phase),
        (None, None) => migration.phase.clone(),
    };
    let mut text = format!(
        "{}: {} from {} to {} ({}): {end}\n",
        migration.id,
        migration.container,
        migration.from(),
        migration.to(),
        migration.mode.as_deref().unwrap_or("live"),
    );
    for said in [&migration.reason, &migration.remedy].into_iter().flatten() {
        text.push_str(&format!("  {said}\n"));
    }
    text.push_str(&migrate::costs(context, migration));
    if let Some(bars) = timeline::draw(migration) {
        text.push('\n');
        text.push_str(&bars);
    }
    text
}

/// Calls a move off, and waits until it is over unless told otherwise.
pub(super) async fn cancel(context: &Context, id: &str, detach: bool) -> Result<(), Failure> {
    let mut interrupt = Interrupt::listen()?;
    interrupt.or(context.client.post(&["migrations", id, "cancel"], None)).await?;
    if !detach {
        let end: Migration = read(&context.until_settled(&mut interrupt, id).await?)?;
        if !matches!(end.outcome.as_deref(), Some("cancelled" | "aborted")) {
            return Err(Failure::Failed {
                message: format!(
                    "{id} was not called off: it ended as {}",
                    end.outcome.as_deref().unwrap_or("unknown")
                ),
                remedy: Some(format!("see `godwit migration inspect {id}`")),
            });
        }
    }
    context.screen.line(id)
}
