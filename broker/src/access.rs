//! Who may do what.

/// Whether a subscription may be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Grant {
    /// Nothing that the filter matches may be read.
    Refused,
    /// All of it may be read.
    Granted,
    /// Some of it may be read: each message is checked.
    Checked,
}

/// What an account may do.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rights;

impl Rights {
    pub(crate) fn everything() -> Self {
        Self
    }
    pub(crate) fn may_publish(&self, _topic: &str) -> bool {
        true
    }
    pub(crate) fn may_read(&self, _topic: &str) -> bool {
        true
    }
    pub(crate) fn may_subscribe(&self, _filter: &str) -> Grant {
        Grant::Granted
    }
}

/// Who a client says that it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Identity<'a> {
    pub(crate) client: &'a str,
    pub(crate) user: Option<&'a str>,
    pub(crate) password: Option<&'a [u8]>,
    pub(crate) address: &'a str,
}

/// Who may come in.
#[derive(Debug, Clone, Default)]
pub(crate) enum Access {
    /// Everybody, and to everything.
    #[default]
    Open,
}

impl Access {
    pub(crate) async fn admit(
        &self,
        _identity: &Identity<'_>,
    ) -> Result<Rights, rmqtt_codec::v5::ConnectAckReason> {
        match self {
            Self::Open => Ok(Rights::everything()),
        }
    }
}
