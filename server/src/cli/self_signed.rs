//! `gatepost tls self-signed`: a certificate for a start. Other servers encrypt to it all the same; whoever verifies will not trust it.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use gatepost_protocol::address;
use rcgen::{CertificateParams, DnType, KeyPair};

use super::{FAILED, refuse};
use crate::config::system_hostname;

/// How long it is good; the most that common clients take.
const GOOD_FOR: Duration = Duration::from_secs(825 * 24 * 60 * 60);

/// A certificate and its key, in PEM.
pub struct SelfSigned {
    pub cert: String,
    pub key: String,
}

/// Makes the files in a folder, which is made where it is not there. A file that is there already is not touched.
pub fn write(mut names: Vec<String>, out: &Path) -> ExitCode {
    if names.is_empty() {
        names.push(system_hostname());
    }
    let is_name = |name: &str| address::is_domain(name.strip_prefix("*.").unwrap_or(name));
    if let Some(name) = names.iter().find(|name| !is_name(name)) {
        return refuse(&format!(
            "\"{name}\" is no host name; write one like \"mx.example.org\""
        ));
    }
    let (cert, key) = (out.join("cert.pem"), out.join("key.pem"));
    if let Some(there) = [&cert, &key].into_iter().find(|file| file.exists()) {
        return refuse(&format!(
            "{} is there already: remove it, or name another folder with --out",
            there.display()
        ));
    }
    let made = match make(&names) {
        Ok(made) => made,
        Err(error) => return failed(&error.to_string()),
    };
    let written = DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(out)
        // The key first: a certificate without one would be refused.
        .and_then(|()| create(&key, 0o600, &made.key))
        .and_then(|()| create(&cert, 0o644, &made.cert));
    if let Err(error) = written {
        return failed(&format!("{} cannot be written: {error}", out.display()));
    }
    println!(
        "Made {} and {}, for {}. Add to gatepost.toml:

[tls]
cert = {:?}
key = {:?}

and to [[listen]]: tls = \"starttls\", or tls = \"implicit\" for port 465.",
        cert.display(),
        key.display(),
        names.join(", "),
        cert.display().to_string(),
        key.display().to_string(),
    );
    ExitCode::SUCCESS
}

/// Makes a certificate for these names with a new key (ECDSA, P-256).
pub fn make(names: &[String]) -> Result<SelfSigned, rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    let now = SystemTime::now();
    params.not_before = now.into();
    params.not_after = (now + GOOD_FOR).into();
    if let Some(name) = names.first() {
        params.distinguished_name.push(DnType::CommonName, name);
    }
    let key = KeyPair::generate()?;
    Ok(SelfSigned {
        cert: params.self_signed(&key)?.pem(),
        key: key.serialize_pem(),
    })
}

fn create(file: &Path, mode: u32, text: &str) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(mode);
    options.open(file)?.write_all(text.as_bytes())
}

fn failed(error: &str) -> ExitCode {
    eprintln!("{error}");
    ExitCode::from(FAILED)
}
