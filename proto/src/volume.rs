//! Volumes: directories of a tenant's that outlive their containers and move with them.

use std::fmt;
use std::path::{Component, Path};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::id::{NameError, VolumeName};

/// A tenant's volume, and where its container sees it: `NAME:/path`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Which.
    pub name: VolumeName,
    /// Where, as an absolute path without `.` and `..`.
    pub path: String,
}

/// Why a text is not a volume of a container.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VolumeError {
    /// It has no name and path.
    #[error("`{0}` is not NAME:/path")]
    Form(String),
    /// It is a directory of the node's.
    #[error("`{0}` is a directory of one node, which does not move with a container")]
    Bind(String),
    /// The name is none.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The path is none that a volume can be at.
    #[error("`{0}` is no place for a volume: an absolute path below /, without `.` and `..`")]
    Path(String),
}

impl FromStr for Volume {
    type Err = VolumeError;
    fn from_str(text: &str) -> Result<Self, VolumeError> {
        let cut = || text.chars().take(80).collect();
        let (name, path) = text.split_once(':').ok_or_else(|| VolumeError::Form(cut()))?;
        if name.contains('/') || name.starts_with('.') {
            return Err(VolumeError::Bind(name.chars().take(80).collect()));
        }
        let is_place = path.len() <= 4096
            && path.starts_with('/')
            && !path.chars().any(|c| c == ':' || c.is_control())
            && Path::new(path)
                .components()
                .skip(1)
                .all(|part| matches!(part, Component::Normal(_)))
            && Path::new(path).components().nth(1).is_some();
        if !is_place {
            return Err(VolumeError::Path(path.chars().take(80).collect()));
        }
        // As one writes it: no doubled slashes, none at the end, no `.` in between.
        let path = Path::new(path).components().as_path().to_string_lossy().into_owned();
        let parts: Vec<_> =
            path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
        Ok(Self { name: name.parse()?, path: format!("/{}", parts.join("/")) })
    }
}

impl fmt::Display for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_is_read() {
        for (text, read) in [
            ("data:/var/lib/db", "data:/var/lib/db"),
            ("d:/a/", "d:/a"),
            ("d://a///b", "d:/a/b"),
            ("d:/a/./b", "d:/a/b"),
        ] {
            assert_eq!(text.parse::<Volume>().unwrap().to_string(), read);
        }
    }

    #[test]
    fn what_is_no_volume_is_refused() {
        for text in [
            "data",
            "data:",
            ":/a",
            "data:a",
            "data:/",
            "data:/.",
            "Data:/a",
            "../x:/a",
            "data:/a/../b",
            "data:/a:ro",
            "data:/a\nb",
            "/srv:/a",
        ] {
            assert!(text.parse::<Volume>().is_err(), "{text}");
        }
    }
}
