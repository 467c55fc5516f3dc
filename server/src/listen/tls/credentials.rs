//! What handshakes need, from the files that the configuration names; read again when these change.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gatepost_protocol::{Level, SettingError};
use rustls::ServerConfig;
use rustls::server::danger::ClientCertVerifier;
use rustls::version::{TLS12, TLS13};

use super::certificates::{self, Certificates, Wrong};
use super::clients::{self, Asks};
use super::names;
use crate::config::{ClientCert, Stamp, TlsConfig, TlsVersion};
use crate::report;

/// Whose lines these are in the log.
const LOGGED_AS: &str = "tls";
/// How often the files are looked at, at most.
const LOOK: Duration = Duration::from_secs(1);

/// Certificates, keys, and whom to trust. What the files say holds a second later, without a restart, for new handshakes; where they make no
/// sense the old holds, and the log says so.
pub struct Credentials {
    config: TlsConfig,
    state: Mutex<State>,
}

struct State {
    current: Arc<Current>,
    files: Files,
    looked: Instant,
}

/// What is in force.
pub struct Current {
    pub server: Arc<ServerConfig>,
    /// Verifies clients, where they are asked for a certificate.
    pub clients: Option<Arc<dyn ClientCertVerifier>>,
}

/// What stood in the files.
struct Files {
    stamps: Vec<Option<Stamp>>,
    texts: Vec<Result<Vec<u8>, String>>,
}

/// What came of reading them, and what is to be warned of.
type Made = Result<(Current, Vec<SettingError>), Vec<SettingError>>;

impl Credentials {
    /// Reads all files. Blocks. Beside the credentials there are warnings: certificates that are expired.
    ///
    /// # Errors
    /// All that is wrong with them, by the key in `[tls]`.
    pub fn read(
        config: &TlsConfig,
    ) -> Result<(Arc<Credentials>, Vec<SettingError>), Vec<SettingError>> {
        let files = Files::read(&paths(config));
        let (current, warnings) = make(config, &files)?;
        let credentials = Credentials {
            config: config.clone(),
            state: Mutex::new(State {
                current: Arc::new(current),
                files,
                looked: Instant::now(),
            }),
        };
        Ok((Arc::new(credentials), warnings))
    }

    /// What is in force now. At most once a second the files are looked at first: a `stat` of each, and where one changed they are read.
    pub fn current(&self) -> Arc<Current> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looked.elapsed() >= LOOK {
            state.looked = Instant::now();
            self.refresh(&mut state);
        }
        Arc::clone(&state.current)
    }

    fn refresh(&self, state: &mut State) {
        let paths = paths(&self.config);
        if state.files.hold(&paths) {
            return;
        }
        let before = std::mem::replace(&mut state.files, Files::read(&paths));
        if before.texts == state.files.texts {
            return;
        }
        match make(&self.config, &state.files) {
            Ok((current, warnings)) => {
                state.current = Arc::new(current);
                let text = "the certificates have changed, and hold from here on";
                report::line(Level::Notice, "", None, LOGGED_AS, format_args!("{text}"));
                for SettingError { message, .. } in warnings {
                    report::line(Level::Warn, "", None, LOGGED_AS, format_args!("{message}"));
                }
            }
            Err(errors) => {
                for SettingError { message, .. } in errors {
                    let text = format_args!(
                        "the files have changed, the old certificates stay: {message}"
                    );
                    report::line(Level::Error, "", None, LOGGED_AS, text);
                }
            }
        }
    }
}

impl Files {
    fn read(paths: &[PathBuf]) -> Files {
        // Before the texts: a change in between shows at the next look.
        let stamps = paths.iter().map(|path| stamp(path)).collect();
        let text = |path: &PathBuf| {
            std::fs::read(path)
                .map_err(|error| format!("`{}` cannot be read: {error}", path.display()))
        };
        Files {
            stamps,
            texts: paths.iter().map(text).collect(),
        }
    }

    /// Whether they are surely still the same.
    fn hold(&self, paths: &[PathBuf]) -> bool {
        self.stamps
            .iter()
            .zip(paths)
            .all(|(old, path)| match (old, stamp(path)) {
                (None, None) => true,
                (Some(old), Some(new)) => *old == new && old.is_settled(),
                _ => false,
            })
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    std::fs::metadata(path).ok().as_ref().map(Stamp::of)
}

/// Certificate, key, certificate, key, and so on, and last those who vouch for clients.
fn paths(config: &TlsConfig) -> Vec<PathBuf> {
    let pairs = config.certificates.iter();
    pairs
        .flat_map(|pair| [pair.cert.clone(), pair.key.clone()])
        .chain(config.client_ca.clone())
        .collect()
}

fn make(config: &TlsConfig, files: &Files) -> Made {
    let (mut pairs, mut errors, mut warnings) = (Vec::new(), Vec::new(), Vec::new());
    for (index, (pair, texts)) in config
        .certificates
        .iter()
        .zip(files.texts.chunks(2))
        .enumerate()
    {
        let at = |key: &str, message: String| {
            let mut path = match index {
                0 => Vec::new(),
                _ => vec!["certificate".to_owned(), (index - 1).to_string()],
            };
            path.push(key.to_owned());
            SettingError { path, message }
        };
        let made = match texts {
            [Ok(cert), Ok(key)] => certificates::pair((&pair.cert, cert), (&pair.key, key)),
            [cert, key] => {
                // Both may be missing.
                errors.extend(cert.as_ref().err().map(|text| at("cert", text.clone())));
                errors.extend(key.as_ref().err().map(|text| at("key", text.clone())));
                continue;
            }
            _ => continue,
        };
        match made {
            Ok(made) => {
                if let Some(day) = made.cert.first().and_then(names::expired) {
                    let path = pair.cert.display();
                    let text = format!("the certificate in `{path}` expired on {day}");
                    warnings.push(at("cert", text));
                }
                pairs.push((made, &*pair.names));
            }
            Err(Wrong::Cert(message)) => errors.push(at("cert", message)),
            Err(Wrong::Key(message)) => errors.push(at("key", message)),
        }
    }
    let whole = |key: &str, message: String| SettingError {
        path: vec![key.to_owned()],
        message,
    };
    let clients = match (&config.client_ca, files.texts.last()) {
        (Some(path), Some(text)) => verifier(path, text)
            .map_err(|message| errors.push(whole("client_ca", message)))
            .ok(),
        _ => None,
    };
    let certificates = Certificates::new(pairs);
    let (Some(certificates), true) = (certificates, errors.is_empty()) else {
        return Err(errors);
    };
    let server = server(config, clients.clone(), certificates)
        .map_err(|error| vec![whole("cert", error.to_string())])?;
    let current = Current {
        server: Arc::new(server),
        clients,
    };
    Ok((current, warnings))
}

fn verifier(
    path: &Path,
    text: &Result<Vec<u8>, String>,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let text = text.as_ref().map_err(String::clone)?;
    clients::verifier(certificates::read(path, text)?).map_err(|error| {
        format!(
            "the certificates in `{}` cannot be used: {error}",
            path.display()
        )
    })
}

fn server(
    config: &TlsConfig,
    clients: Option<Arc<dyn ClientCertVerifier>>,
    certificates: Certificates,
) -> Result<ServerConfig, rustls::Error> {
    let versions: &[_] = match config.min_version {
        TlsVersion::V1_2 => &[&TLS13, &TLS12],
        TlsVersion::V1_3 => &[&TLS13],
    };
    let builder =
        ServerConfig::builder_with_provider(super::provider()).with_protocol_versions(versions)?;
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(verifier) => builder.with_client_cert_verifier(Arc::new(Asks {
            verifier,
            required: config.client_cert == ClientCert::Require,
        })),
    };
    Ok(builder.with_cert_resolver(Arc::new(certificates)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_changed_a_moment_ago_may_have_changed_again() {
        let fresh = tempfile::NamedTempFile::new().unwrap();
        let paths = [fresh.path().to_owned()];
        assert!(!Files::read(&paths).hold(&paths));
        for settled in ["Cargo.toml", "there is no such file"] {
            let paths = [Path::new(env!("CARGO_MANIFEST_DIR")).join(settled)];
            assert!(Files::read(&paths).hold(&paths), "{settled}");
        }
    }
}
