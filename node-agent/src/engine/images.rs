//! Images: listed, written to and read from docker-archives, removed.

use std::path::Path;

use bollard::query_parameters::{ListImagesOptions, RemoveImageOptions, TagImageOptions};
use godwit_proto::id::ImageId;
use hyper::Method;
use serde::Deserialize;

use super::podman::Podman;
use super::{EngineError, HeldImage};

/// podman's answer to a load.
#[derive(Deserialize)]
struct Loaded {
    #[serde(rename = "Names")]
    names: Vec<String>,
}

/// podman's answer to an import.
#[derive(Deserialize)]
struct Imported {
    #[serde(rename = "Id")]
    id: String,
}

impl Podman {
    pub(super) async fn list_images(&self) -> Result<Vec<HeldImage>, EngineError> {
        let listed = self.docker.list_images(None::<ListImagesOptions>).await;
        let listed = listed.map_err(|error| self.refused("listing images", error))?;
        Ok(listed
            .into_iter()
            .filter_map(|image| {
                Some(HeldImage {
                    id: image.id.parse().ok()?,
                    names: image.repo_tags,
                    size_bytes: image.size.max(0).cast_unsigned(),
                })
            })
            .collect())
    }

    pub(super) async fn list_layers(&self, id: &ImageId) -> Result<Vec<String>, EngineError> {
        let image = self.docker.inspect_image(id.as_str()).await;
        let what = || format!("reading the layers of image {}", id.short());
        let image = image.map_err(|error| self.refused(&what(), error))?;
        Ok(image.root_fs.and_then(|root| root.layers).unwrap_or_default())
    }

    pub(super) async fn write_image(&self, id: &ImageId, file: &Path) -> Result<(), EngineError> {
        let what = format!("saving image {}", id.short());
        let held = self.list_images().await?.into_iter().find(|image| image.id == *id);
        let Some(held) = held else {
            return Err(EngineError::Refused { what, message: "podman does not hold it".into() });
        };
        // By a name where it has one, so that it has it on the other node too.
        let reference = held.names.first().map_or(id.as_str(), String::as_str);
        let path = format!("images/{}/get?format=docker-archive", percent(reference));
        self.libpod.fetch(Method::GET, &path, file).await?.map_err(|r| r.into_error(what))
    }

    pub(super) async fn read_image(&self, file: &Path) -> Result<ImageId, EngineError> {
        let what = || format!("loading the image in {}", file.display());
        let unreadable = |message: String| EngineError::Refused { what: what(), message };
        let answer = self.libpod.post_file("images/load", file).await?;
        let answer = answer.map_err(|refusal| refusal.into_error(what()))?;
        let loaded: Loaded =
            serde_json::from_slice(&answer).map_err(|e| unreadable(e.to_string()))?;
        let name = loaded.names.first().ok_or_else(|| unreadable("it holds no image".into()))?;
        let image = self.docker.inspect_image(name).await.map_err(|e| self.refused(&what(), e))?;
        let id = image.id.unwrap_or_default();
        id.parse().map_err(|error| unreadable(format!("{error}")))
    }

    pub(super) async fn tag(&self, id: &ImageId, name: &str) -> Result<(), EngineError> {
        // A colon before the last slash is a registry's port, not a tag's.
        let (repo, tag) = match name.rsplit_once(':') {
            Some((repo, tag)) if !tag.contains('/') => (repo, tag),
            _ => (name, "latest"),
        };
        let options = TagImageOptions { repo: Some(repo.into()), tag: Some(tag.into()) };
        let tagged = self.docker.tag_image(id.as_str(), Some(options)).await;
        tagged.map_err(|error| self.refused(&format!("naming image {} {name}", id.short()), error))
    }

    /// Makes an image of that name from the tar of a root directory.
    pub(crate) async fn import_image(
        &self,
        file: &Path,
        name: &str,
    ) -> Result<ImageId, EngineError> {
        let what = || format!("importing {}", file.display());
        let answer = self
            .libpod
            .post_file(&format!("images/import?reference={}", percent(name)), file)
            .await?;
        let answer = answer.map_err(|refusal| refusal.into_error(what()))?;
        let unreadable = |message: String| EngineError::Refused { what: what(), message };
        let imported: Imported =
            serde_json::from_slice(&answer).map_err(|e| unreadable(e.to_string()))?;
        imported.id.parse().map_err(|error| unreadable(format!("{error}")))
    }

    pub(super) async fn drop_image(&self, id: &ImageId) -> Result<(), EngineError> {
        let held = self.list_images().await?.into_iter().find(|image| image.id == *id);
        let Some(held) = held else { return Ok(()) };
        // Name by name, the last one removes it: by id podman wants force where there are
        // several, and force would remove the containers that use it.
        let mut names = held.names;
        if names.is_empty() {
            names.push(id.to_string());
        }
        for name in names {
            let options = RemoveImageOptions { force: false, ..Default::default() };
            match self.docker.remove_image(&name, Some(options), None).await {
                Err(bollard::errors::Error::DockerResponseServerError {
                    status_code: 404, ..
                }) => {}
                Err(error) => return Err(self.refused(&format!("removing image {name}"), error)),
                Ok(_) => {}
            }
        }
        Ok(())
    }

    /// bollard's error as the engine's.
    pub(super) fn refused(&self, what: &str, error: bollard::errors::Error) -> EngineError {
        match error {
            bollard::errors::Error::DockerResponseServerError { message, .. } => {
                EngineError::Refused { what: what.to_owned(), message }
            }
            other => EngineError::Unreachable {
                socket: self.config.socket().display().to_string(),
                source: std::io::Error::other(other),
            },
        }
    }
}

/// An image's name as one segment of a path.
fn percent(name: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~' | b':');
    name.bytes()
        .map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_name_with_slashes_stays_one_segment() {
        assert_eq!(super::percent("localhost/lab:1"), "localhost%2Flab:1");
    }
}
