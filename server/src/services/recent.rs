//! What is kept by name, of a bounded number of names.

use std::collections::HashMap;

/// Values by name. What was not wanted for the longest time goes first, half of all at once.
pub struct Recent<V> {
    most: usize,
    recent: HashMap<String, V>,
    older: HashMap<String, V>,
}

impl<V: Clone> Recent<V> {
    /// Room for `most` values.
    pub fn new(most: usize) -> Recent<V> {
        Recent {
            most,
            recent: HashMap::new(),
            older: HashMap::new(),
        }
    }

    /// What is kept under a name.
    pub fn get(&mut self, name: &str) -> Option<V> {
        if let Some(value) = self.recent.get(name) {
            return Some(value.clone());
        }
        let (name, value) = self.older.remove_entry(name)?;
        self.insert(name, value.clone());
        Some(value)
    }

    /// Keeps a value, instead of what was there.
    pub fn insert(&mut self, name: String, value: V) {
        if self.recent.len() >= self.most / 2 {
            self.older = std::mem::take(&mut self.recent);
        }
        self.older.remove(&name);
        self.recent.insert(name, value);
    }

    /// Forgets a name.
    pub fn remove(&mut self, name: &str) {
        self.recent.remove(name);
        self.older.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_kept_than_there_is_room_for() {
        const MOST: usize = 100;
        let mut recent = Recent::new(MOST);
        recent.insert("wanted".to_owned(), 0);
        for number in 0..2 * MOST {
            recent.insert(number.to_string(), number);
            assert_eq!(recent.get("wanted"), Some(0), "what is wanted stays");
            assert!(recent.recent.len() + recent.older.len() <= MOST);
        }
        assert_eq!(recent.get("0"), None);
        recent.remove("wanted");
        assert_eq!(recent.get("wanted"), None);
    }
}
