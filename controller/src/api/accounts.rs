//! `/accounts`, `/tokens` and `/authority`: who may come to the fabric's broker.

use std::net::SocketAddr;

use axum::extract::{ConnectInfo, FromRequestParts, Path, State};
use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, ORIGIN};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Json, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use godwit_broker::admin::is_loopback_name;
use godwit_proto::id::NodeId;
use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use super::Api;
use super::error::{Answer, ApiError, Body};
use crate::accounts::{AccountView, Accounts, NewAccount, TokenView};
use crate::refusal::Refusal;

/// An operator: somebody on the controller's own machine, or who signs in as one.
pub(super) struct Operator;

impl FromRequestParts<Api> for Operator {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
        let is_here = peer.is_some_and(|peer| peer.to_canonical().is_loopback());
        if is_here && speaks_for_itself(&parts.headers) {
            return Ok(Self);
        }
        let claim = parts.headers.get(AUTHORIZATION).and_then(|value| basic(value.to_str().ok()?));
        let (Some((user, password)), Some(peer)) = (claim, peer) else {
            return Err(Refusal::new(
                "sign-in",
                "this is for operators",
                "ask on the controller's own machine, or sign in as an operator (GODWIT_USER and \
                 GODWIT_PASSWORD for the command line)",
            )
            .into());
        };
        here(api)?.sign_in_operator(peer, user, password).await?;
        Ok(Self)
    }
}

/// The accounts, for an operator.
pub(super) struct Book(Accounts);

impl FromRequestParts<Api> for Book {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        Operator::from_request_parts(parts, api).await?;
        here(api).map(Self)
    }
}

/// False for what a browser or a proxy on this machine passes on: a page speaks for who wrote it, by
/// whatever name its host was resolved, and a proxy for somebody elsewhere.
fn speaks_for_itself(headers: &HeaderMap) -> bool {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let is_passed_on = [ORIGIN.as_str(), "forwarded", "x-forwarded-for", "x-real-ip"]
        .iter()
        .any(|name| headers.contains_key(*name));
    !is_passed_on && host.is_none_or(is_loopback_name)
}

/// User and password of `Basic …`.
fn basic(value: &str) -> Option<(String, String)> {
    let encoded = value.strip_prefix("Basic ")?;
    let text = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

fn here(api: &Api) -> Result<Accounts, ApiError> {
    api.accounts.clone().ok_or_else(|| {
        Refusal::new(
            "broker-elsewhere",
            "this fabric's broker is not the controller's own, and keeps its own accounts",
            "look at that broker's password and ACL files",
        )
        .into()
    })
}

pub(super) async fn list(Book(accounts): Book) -> Answer<Json<Vec<AccountView>>> {
    Ok(Json(accounts.list().await?))
}

pub(super) async fn add(
    Book(accounts): Book,
    Body(new): Body<NewAccount>,
) -> Answer<Json<AccountView>> {
    Ok(Json(accounts.add(new).await?))
}

pub(super) async fn remove(
    Book(accounts): Book,
    Path(name): Path<String>,
) -> Answer<Json<serde_json::Value>> {
    accounts.remove(&name).await?;
    Ok(Json(serde_json::json!({ "name": name })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewPassword {
    password: Option<String>,
}

#[derive(Serialize)]
pub(super) struct PasswordAnswer {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<String>,
}

pub(super) async fn password(
    Book(accounts): Book,
    Path(name): Path<String>,
    Body(new): Body<NewPassword>,
) -> Answer<Json<PasswordAnswer>> {
    let password = accounts.set_password(&name, new.password).await?;
    Ok(Json(PasswordAnswer { name, password }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewToken {
    node: Option<NodeId>,
    lifetime_ms: Option<u32>,
}

pub(super) async fn invite(
    Book(accounts): Book,
    Body(new): Body<NewToken>,
) -> Answer<Json<TokenView>> {
    let life = new.lifetime_ms.map(|ms| SignedDuration::from_millis(ms.into()));
    Ok(Json(accounts.invite(new.node, life).await?))
}

/// For everybody: it is shown in every handshake.
pub(super) async fn authority(State(api): State<Api>) -> Answer<Response> {
    let pem = here(&api)?.authority();
    Ok(([(CONTENT_TYPE, "application/x-pem-file")], pem).into_response())
}
