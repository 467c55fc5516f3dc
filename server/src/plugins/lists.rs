//! A list of entries that the configuration and flat files both can hold, parsed once for as long as it stays the same.
//!
//! The configuration's entries come first. What a file holds is asked each time, since the core re-reads it when it changes and plugins may
//! answer in its place; only equal lines are not parsed again, so that a regular expression is not compiled for every message.

use std::sync::{Arc, Mutex, PoisonError};

use gatepost_protocol::{Init, Level, ServiceError, Services, SettingError};

/// Takes in one entry after the other.
pub trait Entries: Clone + Default + Send + Sync + 'static {
    /// Adds an entry as it is written, or says what is wrong with it.
    fn add(&mut self, entry: &str) -> Result<(), String>;
}

/// Entries of the configuration and of flat files.
pub struct List<T> {
    plugin: String,
    files: &'static [&'static str],
    services: Arc<dyn Services>,
    own: Arc<T>,
    last: Mutex<Option<Parsed<T>>>,
}

/// The entries with the files' lines they were made from.
struct Parsed<T> {
    lines: Vec<Vec<String>>,
    entries: Arc<T>,
}

impl<T: Entries> List<T> {
    /// The entries of the setting `key`, and of `files` in the folder of flat files.
    pub fn new(
        init: &Init,
        key: &str,
        files: &'static [&'static str],
    ) -> Result<List<T>, Vec<SettingError>> {
        let mut own = T::default();
        let mut errors = Vec::new();
        for (index, entry) in init.settings.list(key).into_iter().enumerate() {
            if let Err(message) = own.add(entry.trim()) {
                errors.push(SettingError {
                    path: vec![key.to_owned(), index.to_string()],
                    message,
                });
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(List {
            plugin: init.name.clone(),
            files,
            services: Arc::clone(&init.services),
            own: Arc::new(own),
            last: Mutex::default(),
        })
    }

    /// The entries of the configuration alone.
    pub fn own(&self) -> &T {
        &self.own
    }

    /// All entries, the configuration's first. A wrong line of the file is logged when it is first seen, and left out.
    pub async fn entries(&self) -> Result<Arc<T>, ServiceError> {
        let mut lines = Vec::with_capacity(self.files.len());
        for file in self.files {
            lines.push(self.services.config(file).await?);
        }
        if lines.iter().all(Vec::is_empty) {
            return Ok(Arc::clone(&self.own));
        }
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(parsed) = &*last
            && parsed.lines == lines
        {
            return Ok(Arc::clone(&parsed.entries));
        }
        let mut entries = T::clone(&self.own);
        for (file, line) in self
            .files
            .iter()
            .zip(&lines)
            .flat_map(|(file, lines)| lines.iter().map(move |line| (file, line)))
        {
            if let Err(message) = entries.add(line.trim()) {
                let message = format!("{file}: `{line}` is ignored: {message}");
                self.services.log(&self.plugin, Level::Warn, &message);
            }
        }
        let entries = Arc::new(entries);
        *last = Some(Parsed {
            lines,
            entries: Arc::clone(&entries),
        });
        Ok(entries)
    }
}

/// Collects the mistakes of several lists, so that the operator sees all of them at once.
pub fn checked<T>(list: Result<T, Vec<SettingError>>, errors: &mut Vec<SettingError>) -> Option<T> {
    list.map_err(|wrong| errors.extend(wrong)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::{FakeServices, init};

    #[derive(Clone, Default)]
    struct Words(Vec<String>);

    impl Entries for Words {
        fn add(&mut self, entry: &str) -> Result<(), String> {
            if entry.contains('!') {
                return Err("no shouting".to_owned());
            }
            self.0.push(entry.to_owned());
            Ok(())
        }
    }

    #[tokio::test]
    async fn the_file_adds_to_the_configuration_and_changes_are_seen() {
        let services = FakeServices::new();
        let init = init(&services, [("words", ["a"].into())]);
        let list = List::<Words>::new(&init, "words", &["words"]).unwrap();
        assert_eq!(list.entries().await.unwrap().0, ["a"]);
        services.file("words", &["b", "c!", "d"]);
        let first = list.entries().await.unwrap();
        assert_eq!(first.0, ["a", "b", "d"]);
        assert!(
            Arc::ptr_eq(&first, &list.entries().await.unwrap()),
            "parsed once"
        );
        assert_eq!(
            services.logged(),
            ["test warn words: `c!` is ignored: no shouting"]
        );
        services.file("words", &["e"]);
        assert_eq!(list.entries().await.unwrap().0, ["a", "e"]);
    }

    #[test]
    fn a_wrong_setting_is_named_by_its_place() {
        let services = FakeServices::new();
        let init = init(&services, [("words", ["a", "b!"].into())]);
        let errors = List::<Words>::new(&init, "words", &["words"])
            .err()
            .unwrap();
        assert_eq!(errors[0].path, ["words", "1"]);
        assert_eq!(errors[0].message, "no shouting");
    }
}
