//! `godwit account`, `godwit node token` and `godwit authority`.

use std::io::Read as _;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

use super::{Context, items};
use crate::args::{AccountAdd, NodeToken, Passwd};
use crate::error::{Failure, say};
use crate::human;
use crate::render::{Format, cell, read};

#[derive(Deserialize)]
struct Account {
    name: String,
    kind: String,
    #[serde(default)]
    publish: Vec<String>,
    #[serde(default)]
    subscribe: Vec<String>,
    created: Timestamp,
    password: Option<String>,
}

#[derive(Deserialize)]
struct Password {
    password: Option<String>,
}

#[derive(Deserialize)]
struct Token {
    token: String,
    node: Option<String>,
    expires: Timestamp,
}

/// Lists accounts.
pub(super) async fn ls(context: &Context, format: &Format) -> Result<(), Failure> {
    let accounts = items(&context.client, context.client.get(&["accounts"], &[]).await?)?;
    let header = ["NAME", "KIND", "PUBLISHES", "SUBSCRIBES", "CREATED"];
    context.screen.list(format, &accounts, header, |account: Account| {
        [
            cell(&account.name),
            cell(&account.kind),
            cell(account.publish.join(" ")),
            cell(account.subscribe.join(" ")),
            cell(human::age(account.created)),
        ]
    })
}

/// Makes an account.
pub(super) async fn add(context: &Context, add: AccountAdd) -> Result<(), Failure> {
    let is_derived = add.name.contains('/');
    let kind = add.kind.unwrap_or(if is_derived { "derived" } else { "tenant" }.to_owned());
    let body = json!({
        "name": add.name, "kind": kind, "topics": add.topics, "read": add.read,
        "password": given(add.password_stdin)?,
    });
    let answer = context.client.post(&["accounts"], Some(&body)).await?;
    let account: Account = read(&answer)?;
    if matches!(add.output.format, Format::Table) && account.password.is_some() {
        say(&format!(
            "{} {} is made; its password is shown this once:",
            account.kind, account.name
        ));
    }
    context.screen.object(&add.output.format, &answer, || {
        Ok(account.password.clone().unwrap_or_else(|| account.name.clone()))
    })
}

/// Changes a password.
pub(super) async fn passwd(context: &Context, passwd: Passwd) -> Result<(), Failure> {
    let body = json!({ "password": given(passwd.password_stdin)? });
    let path = ["accounts", &passwd.name, "password"];
    let answer = context.client.post(&path, Some(&body)).await?;
    let changed: Password = read(&answer)?;
    context.screen.object(&passwd.output.format, &answer, || {
        Ok(changed.password.clone().unwrap_or_else(|| passwd.name.clone()))
    })
}

/// Removes accounts.
pub(super) async fn rm(context: &Context, names: &[String]) -> Result<(), Failure> {
    for name in names {
        context.client.delete(&["accounts", name], &[]).await?;
        context.screen.line(name)?;
    }
    Ok(())
}

/// Makes a token.
pub(super) async fn token(context: &Context, wanted: NodeToken) -> Result<(), Failure> {
    let life = u32::try_from(wanted.lifetime.as_millis()).unwrap_or(u32::MAX);
    let body = json!({ "node": wanted.node, "lifetime_ms": life });
    let answer = context.client.post(&["tokens"], Some(&body)).await?;
    let token: Token = read(&answer)?;
    if matches!(wanted.output.format, Format::Table) {
        let whom = token.node.clone().map_or("one node".to_owned(), |node| format!("node {node}"));
        say(&format!(
            "Lets {whom} in until {}. There: godwit-agent join TOKEN, then godwit-agent run",
            token.expires
        ));
    }
    context.screen.object(&wanted.output.format, &answer, || Ok(token.token.clone()))
}

/// Prints the certificate of the fabric's authority.
pub(super) async fn authority(context: &Context) -> Result<(), Failure> {
    let pem = context.client.bytes(&["authority"], &[]).await?;
    context.screen.bytes(&pem)
}

/// The password on standard input, where it is to be read there.
fn given(is_there: bool) -> Result<Option<String>, Failure> {
    if !is_there {
        return Ok(None);
    }
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .map_err(|source| Failure::Io { what: "read the password".to_owned(), source })?;
    Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned()))
}
