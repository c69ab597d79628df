//! The broker in this process, with the fabric's accounts and authority.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use godwit_broker::listener::{BoundAddress, Endpoint};
use godwit_broker::{Broker, Control};
use godwit_bus::{BrokerUrl, Credentials};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::AppError;
use crate::accounts::{Accounts, CONTROLLER, Directory, Papers, own_names};
use crate::config::Embedded;
use crate::discovery::BrokerPlace;
use crate::refusal::Chain;
use crate::store::StoreHandle;

/// How often it is looked whether a certificate ends.
const DAILY: Duration = Duration::from_secs(24 * 3600);

/// A broker that is bound, and what belongs to it.
pub(super) struct Hub {
    pub(super) broker: Broker,
    pub(super) accounts: Accounts,
    papers: Arc<Papers>,
}

impl Hub {
    /// Opens the accounts and the authority, and binds the broker.
    pub(super) async fn bind(
        wanted: &Embedded,
        data: &Path,
        store: StoreHandle,
        fabric: Uuid,
    ) -> Result<Self, AppError> {
        let papers = Arc::new(Papers::open(data, fabric, own_names(&wanted.names))?);
        let directory = Directory::new(wanted.anonymous)?;
        let reached = reached(&wanted.listen, papers.names());
        let accounts = Accounts::open(store, papers.clone(), fabric, directory, reached).await?;
        let mut listen = wanted.listen.clone();
        // The controller's own way in, whatever the others are; the last.
        listen.push(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into());
        let config = godwit_broker::Config {
            listen,
            tls: Some(papers.tls()),
            anonymous: wanted.anonymous,
            store: Some(data.join("broker.db")),
            ..Default::default()
        };
        let broker = Broker::bind_with(config, accounts.directory()).await?;
        accounts.tell(broker.control());
        Ok(Self { broker, accounts, papers })
    }

    /// Where clients find it; without the controller's own way in.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        let all = self.broker.addresses();
        all[..all.len().saturating_sub(1)].iter().filter_map(BoundAddress::tcp).collect()
    }

    /// The controller's own way in.
    pub(super) fn own(&self) -> (BrokerUrl, Credentials) {
        let address = self.broker.addresses().last().and_then(BoundAddress::tcp);
        // It was bound with one.
        let address = address.unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 1883)));
        let password = self.accounts.directory().own_password();
        (address.into(), Credentials { username: CONTROLLER.to_owned(), password })
    }

    /// What mDNS says of it: where TLS is spoken if anywhere.
    pub(super) fn place(&self, wanted: &[Endpoint]) -> Option<BrokerPlace> {
        let is_public = |address: &SocketAddr| !address.ip().is_loopback();
        let mut ports = wanted.iter().zip(self.broker.addresses()).filter_map(|(endpoint, at)| {
            let address = at.tcp().filter(is_public)?;
            let is_secure = endpoint.accept.iter().any(|transport| transport.is_secure());
            Some((is_secure, address.port()))
        });
        let first = ports.next()?;
        let (is_secure, port) =
            ports.find(|(is_secure, _)| *is_secure).filter(|_| !first.0).unwrap_or(first);
        let authority = is_secure.then(|| self.papers.authority().fingerprint());
        Some(BrokerPlace { address: None, port, authority })
    }

    /// Renews the broker's certificate before it ends, until `shutdown`.
    pub(super) fn renewing(&self, shutdown: CancellationToken) -> impl Future<Output = ()> + use<> {
        let (papers, control) = (self.papers.clone(), self.broker.control());
        async move {
            while tokio::time::timeout(DAILY, shutdown.cancelled()).await.is_err() {
                renew(&papers, &control);
            }
        }
    }
}

fn renew(papers: &Papers, control: &Control) {
    match papers.renew(Timestamp::now()) {
        Ok(false) => {}
        Ok(true) => match control.reload() {
            Ok(()) => tracing::info!("the broker has its next certificate"),
            Err(error) => {
                tracing::error!(error = %Chain(&error), "the certificate is not taken up")
            }
        },
        Err(error) => tracing::error!(error = %Chain(&error), "the broker's certificate ends soon"),
    }
}

/// Where nodes find the broker, for tokens: each name with the port of TLS.
fn reached(listen: &[Endpoint], names: &[String]) -> Vec<String> {
    let secure = listen
        .iter()
        .find(|endpoint| endpoint.accept.contains(&godwit_broker::listener::Transport::Tls));
    let text = secure.map(|endpoint| endpoint.address.to_string()).unwrap_or_default();
    let Some((host, port)) = text.rsplit_once(':') else { return Vec::new() };
    let is_everywhere = matches!(host, "0.0.0.0" | "[::]");
    let url = |name: &str| match name.contains(':') {
        true => format!("mqtts://[{name}]:{port}"),
        false => format!("mqtts://{name}:{port}"),
    };
    if !is_everywhere {
        return vec![format!("mqtts://{text}")];
    }
    let is_far = |name: &&String| {
        *name != "localhost"
            && !name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    };
    names.iter().filter(is_far).map(|name| url(name)).collect()
}
