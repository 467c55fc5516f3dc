//! Flat files of a user that stand over the site's of the same name, for a plugin that was made for that user.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use gatepost_protocol::services::ServiceErrorCode;
use gatepost_protocol::{
    Address, Bounce, BoxFuture, DnsAnswer, Level, RecordType, ServiceError, Services, Submission,
    Validity,
};

use super::FlatFiles;

/// The services, with other flat files.
pub struct OwnFiles {
    /// The services of everybody.
    pub site: Arc<dyn Services>,
    /// The names of the user's files.
    pub names: BTreeSet<String>,
    /// Reads them.
    pub files: FlatFiles,
}

impl Services for OwnFiles {
    fn config(&self, name: &str) -> BoxFuture<'static, Result<Vec<String>, ServiceError>> {
        if !self.names.contains(name) {
            return self.site.config(name);
        }
        let failed = |message| ServiceError::new(ServiceErrorCode::Failed, message);
        Box::pin(std::future::ready((self.files)(name).map_err(failed)))
    }

    fn config_for(
        &self,
        name: &str,
        recipient: &Address,
    ) -> BoxFuture<'static, Result<Vec<String>, ServiceError>> {
        self.site.config_for(name, recipient)
    }

    fn log(&self, plugin: &str, level: Level, message: &str) {
        self.site.log(plugin, level, message);
    }

    fn dns(
        &self,
        name: &str,
        kind: RecordType,
    ) -> BoxFuture<'static, Result<DnsAnswer, ServiceError>> {
        self.site.dns(name, kind)
    }

    fn recipient_valid(
        &self,
        address: &Address,
    ) -> BoxFuture<'static, Result<Validity, ServiceError>> {
        self.site.recipient_valid(address)
    }

    fn state_get(&self, key: &str) -> BoxFuture<'static, Result<Option<Vec<u8>>, ServiceError>> {
        self.site.state_get(key)
    }

    fn state_set(
        &self,
        key: &str,
        value: Vec<u8>,
        ttl: Option<Duration>,
    ) -> BoxFuture<'static, Result<(), ServiceError>> {
        self.site.state_set(key, value, ttl)
    }

    fn state_add(
        &self,
        key: &str,
        add: i64,
        ttl: Option<Duration>,
    ) -> BoxFuture<'static, Result<i64, ServiceError>> {
        self.site.state_add(key, add, ttl)
    }

    fn state_delete(&self, key: &str) -> BoxFuture<'static, Result<(), ServiceError>> {
        self.site.state_delete(key)
    }

    fn submit(&self, submission: Submission) -> BoxFuture<'static, Result<String, ServiceError>> {
        self.site.submit(submission)
    }

    fn bounce(&self, bounce: Bounce) -> BoxFuture<'static, Result<Option<String>, ServiceError>> {
        self.site.bounce(bounce)
    }
}
