//! Devices: declared on nodes by label, asked for by label, found wherever a node has them.

use std::fmt;
use std::path::{Component, Path};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::id::{DeviceName, NameError};

/// A device by its label, and where its container sees it: `LABEL` or `LABEL:/dev/path`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Which.
    pub name: DeviceName,
    /// Where, as a path below `/dev`.
    pub path: String,
}

/// Why a text is not a device of a container.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// It is a path of a node's, which another node has not.
    #[error("`{0}` is a path, and devices are asked for by label")]
    Path(String),
    /// The label is none.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A device cannot be there.
    #[error("`{0}` is no place for a device: a path below /dev, without `.` and `..`")]
    Place(String),
}

impl FromStr for Device {
    type Err = DeviceError;
    fn from_str(text: &str) -> Result<Self, DeviceError> {
        let cut = |text: &str| text.chars().take(80).collect();
        if text.starts_with(['/', '.']) {
            return Err(DeviceError::Path(cut(text)));
        }
        let Some((name, path)) = text.split_once(':') else {
            return Ok(Self { name: text.parse()?, path: format!("/dev/{text}") });
        };
        let below = path.strip_prefix("/dev/").unwrap_or_default();
        let is_place = !below.is_empty()
            && path.len() <= 4096
            && !below.split('/').any(|part| matches!(part, "" | "." | ".."))
            && !below.chars().any(|c| c == ':' || c.is_control())
            && Path::new(below).components().all(|part| matches!(part, Component::Normal(_)));
        if !is_place {
            return Err(DeviceError::Place(cut(path)));
        }
        Ok(Self { name: name.parse()?, path: path.to_owned() })
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_enough() {
        for (text, read) in
            [("sensor", "sensor:/dev/sensor"), ("sensor:/dev/tty/1", "sensor:/dev/tty/1")]
        {
            assert_eq!(text.parse::<Device>().unwrap().to_string(), read);
        }
    }

    #[test]
    fn what_is_no_device_is_refused() {
        assert!(matches!("/dev/ttyUSB0".parse::<Device>(), Err(DeviceError::Path(_))));
        for text in ["Sensor", "", "s:", "s:/dev/", "s:/etc/x", "s:/dev/../x", "s:/dev//x", "s:x"] {
            assert!(text.parse::<Device>().is_err(), "{text}");
        }
    }
}
