//! `godwit migrate` and `godwit migration watch`: a move, followed to its end.

use serde_json::{Value, json};

use super::Context;
use super::wait::Interrupt;
use crate::api::{Admission, Migration};
use crate::args::Migrate;
use crate::error::{Exit, Failure, say_reasons};
use crate::follow::{Follow, News};
use crate::human;
use crate::progress::MoveProgress;
use crate::render::{Format, cell, read};

/// Moves a container, or says what that would take.
pub(super) async fn migrate(context: &Context, migrate: &Migrate) -> Result<(), Failure> {
    let body = json!({
        "to": migrate.to,
        "mode": match (migrate.cold, migrate.plain) {
            (true, _) => "cold",
            (_, true) => "plain",
            _ => "live",
        },
        "bwlimit": migrate.bwlimit,
        "dry_run": migrate.dry_run,
    });
    let mut interrupt = Interrupt::listen()?;
    let path = ["containers", migrate.name.as_str(), "migrate"];
    let answer = interrupt.or(context.client.post(&path, Some(&body))).await?;
    if migrate.dry_run {
        return admission(context, &migrate.name, &answer, &migrate.output.format);
    }
    let begun: Migration = read(&answer)?;
    if migrate.detach {
        return context.screen.object(&migrate.output.format, &answer, || Ok(begun.id));
    }
    follow_to_its_end(context, interrupt, &begun.id, &migrate.output.format).await
}

/// Follows a move that somebody ordered.
pub(super) async fn watch(context: &Context, id: &str, format: &Format) -> Result<(), Failure> {
    let interrupt = Interrupt::listen()?;
    // Asked first, so that an id that is unknown or a host that is wrong is told at once.
    context.client.get(&["migrations", id], &[]).await?;
    follow_to_its_end(context, interrupt, id, format).await
}

async fn follow_to_its_end(
    context: &Context,
    mut interrupt: Interrupt,
    id: &str,
    format: &Format,
) -> Result<(), Failure> {
    let end = context.until_settled(&mut interrupt, id).await?;
    let migration: Migration = read(&end)?;
    let moved = migration.outcome.as_deref() == Some("moved");
    if moved || !matches!(format, Format::Table) {
        context.screen.object(format, &end, || Ok(summary(context, &migration)))?;
    }
    if moved { Ok(()) } else { Err(unmoved(&migration)) }
}

impl Context {
    /// Follows the move `id` until it is over and gives it back as it ended, showing how it goes.
    ///
    /// # Errors
    /// [`Failure::Interrupted`] at Ctrl-C: nothing is asked of the controller then, the move goes
    /// on; and those of [`Follow::next`].
    pub(super) async fn until_settled(
        &self,
        interrupt: &mut Interrupt,
        id: &str,
    ) -> Result<Value, Failure> {
        let query = vec![("migration", id.to_owned())];
        let mut follow = Follow::new(&self.client, self.patience, query);
        let mut progress = MoveProgress::new(self.colours);
        loop {
            let news = tokio::select! {
                news = follow.next() => news?,
                () = interrupt.pressed() => return Err(Failure::Interrupted {
                    message: format!("no longer watching; the move {id} goes on"),
                    remedy: format!(
                        "`godwit migration watch {id}` to see it, `godwit migration cancel {id}` \
                         to call it off"
                    ),
                }),
            };
            match news {
                News::Object { kind, data } if kind == "migration" && data["id"] == id => {
                    let migration: Migration = read(&data)?;
                    progress.show(&migration);
                    if migration.settled {
                        progress.end();
                        return Ok(data);
                    }
                }
                News::Object { .. } | News::Ready => {}
                News::Lost => {
                    progress.note(
                        "the controller went away; looking for it (the nodes keep their copies)",
                    );
                }
                News::Back => progress.note("the controller is back"),
            }
        }
    }
}

/// What a dry run found.
fn admission(
    context: &Context,
    name: &str,
    answer: &Value,
    format: &Format,
) -> Result<(), Failure> {
    let admission: Admission = read(answer)?;
    let target = admission.target.as_deref().unwrap_or("another node");
    context.screen.object(format, answer, || {
        let source = admission.source.as_deref().unwrap_or("its node");
        let mode = admission.mode.as_deref().unwrap_or("live");
        if !admission.ok {
            return Ok(format!("{name} cannot move from {source} to {target} ({mode})"));
        }
        let mut words = format!("{name} can move from {source} to {target} ({mode})");
        if let Some(prediction) = &admission.prediction {
            let rows = [
                ("bytes", prediction.bytes.map(human::size)),
                ("total", prediction.total_ms.map(human::duration)),
                ("gap", prediction.gap_ms.map(human::duration)),
            ];
            let known =
                rows.into_iter().filter_map(|(what, value)| Some([cell(what), cell(value?)]));
            words.push('\n');
            words.push_str(&context.screen.table(Some(["PREDICTED", ""]), known.collect()));
        }
        Ok(words)
    })?;
    if admission.ok {
        return Ok(());
    }
    say_reasons(&admission.reasons);
    Err(Failure::Said(Exit::Refused))
}

fn summary(context: &Context, migration: &Migration) -> String {
    format!(
        "{} moved from {} to {} ({})\n{}",
        migration.container,
        migration.from(),
        migration.to(),
        migration.mode.as_deref().unwrap_or("live"),
        costs(context, migration),
    )
}

/// What a move cost: its phases, the gap, the whole, the bytes.
pub(super) fn costs(context: &Context, migration: &Migration) -> String {
    let mut rows: Vec<_> = migration
        .phases
        .iter()
        .filter_map(|phase| Some([cell(&phase.phase), cell(human::duration(phase.ms?))]))
        .collect();
    let bytes = migration.bytes.map(|bytes| match migration.wire_bytes {
        Some(wire) => format!("{} ({} on the wire)", human::size(bytes), human::size(wire)),
        None => human::size(bytes),
    });
    let totals = [
        ("total", migration.total_ms().map(human::duration)),
        ("gap", migration.gap_ms.map(human::duration)),
        ("bytes", bytes),
    ];
    rows.extend(totals.into_iter().filter_map(|(what, value)| Some([cell(what), cell(value?)])));
    context.screen.table(Some(["PHASE", "TIME"]), rows)
}

/// Why a container is not where it was sent, and where it is instead.
fn unmoved(migration: &Migration) -> Failure {
    let (name, from, to) = (&migration.container, migration.from(), migration.to());
    let mut message = match migration.outcome.as_deref() {
        Some("aborted") => format!("{name} runs on at {from}: its move to {to} was aborted"),
        Some("cancelled") => format!("{name} runs on at {from}: its move to {to} was cancelled"),
        Some("returned") => format!("{name} runs on {from} again: {to} could not take it over"),
        Some("salvaged") => format!("{name} runs on {to}, although its move was aborted"),
        Some("rolled-back") => {
            format!("{name} was taken back to {from}: what it did since it was frozen is lost")
        }
        Some("lost") => format!("{name} is lost: neither {from} nor {to} can run it on"),
        Some(outcome) => format!("the move of {name} from {from} to {to} ended as {outcome}"),
        None => format!("the move of {name} from {from} to {to} ended without an outcome"),
    };
    if let Some(reason) = &migration.reason {
        message = format!("{message}: {reason}");
    }
    let remedy = migration.remedy.clone();
    let remedy =
        remedy.or_else(|| Some(format!("see `godwit migration inspect {}`", migration.id)));
    Failure::Failed { message, remedy }
}
