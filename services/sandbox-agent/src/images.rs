//! Images: what is known of them, and where they are pulled from.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use camino::{Utf8Path, Utf8PathBuf};
use nimbus_engine::{Engine, EngineError, Image, Pull, PullPolicy, RegistryAuth};
use nimbus_model::ImageRef;
use secrecy::SecretString;
use serde::Deserialize;

/// How Docker's `config.json` names Docker Hub.
const DOCKER_HUB_KEYS: [&str; 3] = ["https://index.docker.io/v1/", "index.docker.io", "docker.io"];
const DOCKER_HUB: &str = "docker.io";

/// The images of this host.
pub(crate) struct Images {
    engine: Arc<dyn Engine>,
    mirror: Option<String>,
    auth_file: Option<Utf8PathBuf>,
    known: Mutex<HashMap<ImageRef, Arc<Image>>>,
}

impl Images {
    pub(crate) fn new(
        engine: Arc<dyn Engine>,
        mirror: Option<String>,
        auth_file: Option<Utf8PathBuf>,
    ) -> Self {
        Self {
            engine,
            mirror,
            auth_file,
            known: Mutex::default(),
        }
    }

    /// What is known of an image without asking anybody.
    pub(crate) fn known(&self, image: &ImageRef) -> Option<Arc<Image>> {
        self.lock().get(image).cloned()
    }

    /// Forgets what is known: the engine does not have it any more.
    pub(crate) fn forget(&self, image: &ImageRef) {
        self.lock().remove(image);
    }

    /// Makes an image present. What the engine has is taken as it is; else it is pulled, images of
    /// Docker Hub from the mirror if there is one.
    ///
    /// # Errors
    /// What the engine or the registry says.
    pub(crate) async fn ensure(&self, image: &ImageRef) -> Result<Arc<Image>, EngineError> {
        let present = Pull {
            policy: PullPolicy::Never,
            ..Pull::default()
        };
        let found = match self.engine.ensure_image(image, &present).await {
            Err(EngineError::ImageNotFound { .. }) => {
                let from = self.source(image);
                let pull = Pull {
                    auth: self.auth(from.registry()),
                    ..Pull::default()
                };
                tracing::info!(image = %from, "pulling {from}");
                self.engine.ensure_image(&from, &pull).await
            }
            other => other,
        }?;
        let found = Arc::new(found);
        self.lock().insert(image.clone(), Arc::clone(&found));
        Ok(found)
    }

    /// Where an image is pulled from.
    fn source(&self, image: &ImageRef) -> ImageRef {
        let mirrored = || {
            let mirror = self
                .mirror
                .as_deref()
                .filter(|_| image.registry() == DOCKER_HUB)?;
            image
                .to_string()
                .replacen(DOCKER_HUB, mirror.trim_end_matches('/'), 1)
                .parse()
                .inspect_err(|error| {
                    tracing::warn!(mirror, cause = %error, "the image mirror is no registry and is not used");
                })
                .ok()
        };
        mirrored().unwrap_or_else(|| image.clone())
    }

    /// The credentials for a registry; read each time, as they are often short-lived.
    fn auth(&self, registry: &str) -> Option<RegistryAuth> {
        let file = self.auth_file.as_deref()?;
        match read_auths(file) {
            Ok(auths) => find_auth(&auths, registry),
            Err(error) => {
                tracing::warn!(file = %file, cause = %error, "the registry credentials cannot be read; pulling without");
                None
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<ImageRef, Arc<Image>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: HashMap<String, Auth>,
}

#[derive(Deserialize)]
struct Auth {
    auth: Option<String>,
    username: Option<String>,
    password: Option<SecretText>,
}

/// A password while it is being read.
#[derive(Deserialize)]
#[serde(transparent)]
struct SecretText(String);

fn read_auths(file: &Utf8Path) -> std::io::Result<DockerConfig> {
    // A wrong file's content must not reach the log: the error names a place, not the text.
    serde_json::from_slice(&std::fs::read(file)?).map_err(|error| {
        std::io::Error::other(format!("not in the form of config.json (line {})", error.line()))
    })
}

fn find_auth(config: &DockerConfig, registry: &str) -> Option<RegistryAuth> {
    let entry = if registry == DOCKER_HUB {
        DOCKER_HUB_KEYS.iter().find_map(|key| config.auths.get(*key))
    } else {
        config
            .auths
            .get(registry)
            .or_else(|| config.auths.get(&format!("https://{registry}")))
    }?;
    if let (Some(username), Some(password)) = (&entry.username, &entry.password) {
        return Some(RegistryAuth {
            username: username.clone(),
            password: SecretString::from(password.0.clone()),
        });
    }
    let decoded = STANDARD.decode(entry.auth.as_deref()?.trim()).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    let (username, password) = text.split_once(':')?;
    Some(RegistryAuth {
        username: username.to_owned(),
        password: SecretString::from(password.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn credentials_are_found_in_the_forms_that_docker_writes() {
        let config: DockerConfig = serde_json::from_value(serde_json::json!({"auths": {
            "https://index.docker.io/v1/": {"auth": STANDARD.encode("hub:a:b")},
            "registry.example:5000": {"username": "u", "password": "p"},
        }, "credsStore": "none"}))
        .unwrap();
        let hub = find_auth(&config, "docker.io").unwrap();
        assert_eq!(
            (hub.username.as_str(), hub.password.expose_secret()),
            ("hub", "a:b")
        );
        let own = find_auth(&config, "registry.example:5000").unwrap();
        assert_eq!((own.username.as_str(), own.password.expose_secret()), ("u", "p"));
        assert!(find_auth(&config, "other.example").is_none());
    }
}
