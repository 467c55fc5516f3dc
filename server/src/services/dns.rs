//! DNS for plugins, through one resolver with one cache.
//!
//! An answer is definite (records, no records, no such name) or it is an error that may be gone later: a dead server, SERVFAIL, REFUSED.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::OnceLock;
use std::time::Duration;

use gatepost_protocol::services::{ServiceErrorCode, reverse_name};
use gatepost_protocol::{DnsAnswer, DnsStatus, RecordType, ServiceError};
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{self, Name, RData};
use hickory_resolver::{Resolver, TokioResolver};

/// Whom to ask, and how long to wait.
#[derive(Clone, Debug)]
pub struct DnsConfig {
    /// One server instead of those of the system.
    pub server: Option<SocketAddr>,
    /// Until an answer counts as not given, retries included.
    pub timeout: Duration,
}

impl Default for DnsConfig {
    fn default() -> DnsConfig {
        DnsConfig {
            server: None,
            timeout: Duration::from_secs(5),
        }
    }
}

/// Tries in the time of one lookup. A lost datagram is made good for in time, a slow server still has half of it.
const TRIES: u32 = 2;

/// Answers that are kept.
const CACHED_ANSWERS: u64 = 8192;

/// The resolver, made at the first question: a site that asks none needs no resolv.conf.
pub struct Dns {
    config: DnsConfig,
    resolver: OnceLock<TokioResolver>,
}

impl Dns {
    pub fn new(config: DnsConfig) -> Dns {
        Dns {
            config,
            resolver: OnceLock::new(),
        }
    }

    /// Looks up `name`, which is taken as absolute; for PTR it may be an IP address.
    pub async fn lookup(&self, name: &str, kind: RecordType) -> Result<DnsAnswer, ServiceError> {
        let query = absolute_name(name, kind)?;
        let resolver = self.resolver()?;
        let lookup = resolver.lookup(query, wire_type(kind));
        match tokio::time::timeout(self.config.timeout, lookup).await {
            Ok(Ok(found)) => {
                let records = found.answers().iter();
                Ok(answer(
                    records
                        .filter_map(|record| text_of(&record.data, kind))
                        .collect(),
                ))
            }
            Ok(Err(error)) => negative(&error).ok_or_else(|| {
                ServiceError::temporary(format!(
                    "DNS: {} {name}: {}",
                    wire_type(kind),
                    reason(&error)
                ))
            }),
            Err(_) => Err(ServiceError::temporary(format!(
                "DNS: {} {name}: no answer within {:?}",
                wire_type(kind),
                self.config.timeout
            ))),
        }
    }

    fn resolver(&self) -> Result<&TokioResolver, ServiceError> {
        if let Some(resolver) = self.resolver.get() {
            return Ok(resolver);
        }
        let made = build(&self.config)
            .map_err(|error| ServiceError::temporary(format!("DNS: cannot start: {error}")))?;
        Ok(self.resolver.get_or_init(|| made))
    }
}

fn build(config: &DnsConfig) -> Result<TokioResolver, NetError> {
    let mut builder = match config.server {
        Some(server) => {
            let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut to| {
                to.port = server.port();
                to
            });
            let server = NameServerConfig::new(server.ip(), true, connections.into());
            Resolver::builder_with_config(
                ResolverConfig::from_name_servers(vec![server]),
                TokioRuntimeProvider::default(),
            )
        }
        None => Resolver::builder_tokio()?,
    };
    let options: &mut ResolverOpts = builder.options_mut();
    options.timeout = config.timeout / TRIES;
    options.attempts = TRIES as usize - 1;
    options.cache_size = CACHED_ANSWERS;
    // Plugins ask what the world says of a name, not what this machine's hosts file says.
    options.use_hosts_file = ResolveHosts::Never;
    builder.build()
}

fn absolute_name(name: &str, kind: RecordType) -> Result<Name, ServiceError> {
    let address = (kind == RecordType::Ptr)
        .then(|| name.parse::<IpAddr>().ok())
        .flatten();
    let text = address.map_or_else(|| name.to_owned(), reverse_name);
    let mut parsed = Name::from_str(&text).map_err(|error| {
        let message = format!("`{}` is no domain name: {error}", name.escape_debug());
        ServiceError::new(ServiceErrorCode::BadParams, message)
    })?;
    parsed.set_fqdn(true);
    Ok(parsed)
}

const fn wire_type(kind: RecordType) -> rr::RecordType {
    match kind {
        RecordType::A => rr::RecordType::A,
        RecordType::Aaaa => rr::RecordType::AAAA,
        RecordType::Mx => rr::RecordType::MX,
        RecordType::Txt => rr::RecordType::TXT,
        RecordType::Ptr => rr::RecordType::PTR,
        RecordType::Ns => rr::RecordType::NS,
        RecordType::Cname => rr::RecordType::CNAME,
    }
}

/// The record as text, if it is of the type that was asked for: an answer also holds the aliases on the way.
fn text_of(data: &RData, kind: RecordType) -> Option<String> {
    Some(match (data, kind) {
        (RData::A(address), RecordType::A) => address.to_string(),
        (RData::AAAA(address), RecordType::Aaaa) => address.to_string(),
        (RData::MX(mx), RecordType::Mx) => format!("{} {}", mx.preference, plain(&mx.exchange)),
        (RData::TXT(txt), RecordType::Txt) => {
            String::from_utf8_lossy(&txt.txt_data.concat()).into_owned()
        }
        (RData::PTR(name), RecordType::Ptr) => plain(name),
        (RData::NS(name), RecordType::Ns) => plain(name),
        (RData::CNAME(name), RecordType::Cname) => plain(name),
        _ => return None,
    })
}

/// A name without its last dot; the root stays a dot.
fn plain(name: &Name) -> String {
    let text = name.to_ascii();
    match text.strip_suffix('.') {
        Some("") | None => text,
        Some(text) => text.to_owned(),
    }
}

fn answer(records: Vec<String>) -> DnsAnswer {
    let status = if records.is_empty() {
        DnsStatus::NoRecords
    } else {
        DnsStatus::Found
    };
    DnsAnswer { status, records }
}

/// The definite ways of having nothing; `None` where the server only failed to say.
fn negative(error: &NetError) -> Option<DnsAnswer> {
    let NetError::Dns(DnsError::NoRecordsFound(nothing)) = error else {
        return None;
    };
    let status = match nothing.response_code {
        ResponseCode::NXDomain => DnsStatus::NoSuchName,
        ResponseCode::NoError => DnsStatus::NoRecords,
        _ => return None,
    };
    Some(DnsAnswer {
        status,
        records: Vec::new(),
    })
}

fn reason(error: &NetError) -> String {
    match error {
        NetError::Timeout => "no answer in time".to_owned(),
        NetError::NoConnections => "no server answers".to_owned(),
        NetError::Dns(DnsError::ResponseCode(code)) => format!("the server says {code}"),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::test_dns::{self, TestDns};

    const ZONE: &str = r#"
@         IN NS   ns.example.org.
@         IN MX   10 mx.example.org.
mx        IN A    192.0.2.25
mx        IN AAAA 2001:db8::25
alias     IN CNAME mx
_txt      IN TXT  "in two " "parts"
"#;

    const REVERSE: &str = r#"
25        IN PTR  mx.example.org.
"#;

    async fn ask(dns: &Dns, name: &str, kind: RecordType) -> (DnsStatus, Vec<String>) {
        let answer = dns.lookup(name, kind).await.unwrap();
        (answer.status, answer.records)
    }

    #[tokio::test]
    async fn definite_answers() {
        let server =
            TestDns::start(&[("example.org.", ZONE), ("2.0.192.in-addr.arpa.", REVERSE)]).await;
        let dns = Dns::new(server.config());
        use DnsStatus::*;
        for (name, kind, status, records) in [
            ("mx.example.org", RecordType::A, Found, &["192.0.2.25"][..]),
            (
                "mx.example.org.",
                RecordType::Aaaa,
                Found,
                &["2001:db8::25"],
            ),
            ("MX.Example.ORG", RecordType::A, Found, &["192.0.2.25"]),
            ("alias.example.org", RecordType::A, Found, &["192.0.2.25"]),
            (
                "alias.example.org",
                RecordType::Cname,
                Found,
                &["mx.example.org"],
            ),
            ("example.org", RecordType::Mx, Found, &["10 mx.example.org"]),
            ("example.org", RecordType::Ns, Found, &["ns.example.org"]),
            (
                "_txt.example.org",
                RecordType::Txt,
                Found,
                &["in two parts"],
            ),
            ("192.0.2.25", RecordType::Ptr, Found, &["mx.example.org"]),
            (
                "25.2.0.192.in-addr.arpa",
                RecordType::Ptr,
                Found,
                &["mx.example.org"],
            ),
            ("mx.example.org", RecordType::Mx, NoRecords, &[]),
            ("nothing.example.org", RecordType::A, NoSuchName, &[]),
            ("192.0.2.26", RecordType::Ptr, NoSuchName, &[]),
        ] {
            let (got_status, got_records) = ask(&dns, name, kind).await;
            assert_eq!(got_status, status, "{name} {kind:?}");
            assert_eq!(got_records, records, "{name} {kind:?}");
        }
    }

    #[tokio::test]
    async fn what_is_not_definite_is_temporary() {
        let server = TestDns::start(&[("example.org.", ZONE)]).await;
        let refused = Dns::new(server.config());
        let error = refused
            .lookup("elsewhere.example", RecordType::A)
            .await
            .unwrap_err();
        assert_eq!(error.code, ServiceErrorCode::Temporary, "{error}");

        let failing = Dns::new(test_dns::servfail().await);
        let error = failing
            .lookup("mx.example.org", RecordType::A)
            .await
            .unwrap_err();
        assert_eq!(error.code, ServiceErrorCode::Temporary, "{error}");
        assert!(error.message.contains("mx.example.org"), "{error}");

        let dead = Dns::new(test_dns::dead().await);
        let asked = std::time::Instant::now();
        let error = dead
            .lookup("mx.example.org", RecordType::A)
            .await
            .unwrap_err();
        assert_eq!(error.code, ServiceErrorCode::Temporary, "{error}");
        assert!(
            asked.elapsed() < Duration::from_secs(10),
            "bounded by the timeout"
        );
    }

    #[tokio::test]
    async fn a_wrong_name_is_the_callers_mistake() {
        let dns = Dns::new(DnsConfig::default());
        for name in ["a..b", &"x".repeat(64)] {
            let error = dns.lookup(name, RecordType::A).await.unwrap_err();
            assert_eq!(error.code, ServiceErrorCode::BadParams, "{error}");
        }
    }
}
