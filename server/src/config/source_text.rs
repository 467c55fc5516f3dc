//! The text of a configuration file, and what stands where in it.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::Location;

/// A configuration file's text, kept to show its lines in mistakes.
#[derive(Debug)]
pub struct SourceText {
    file: Arc<Path>,
    text: String,
    /// Offsets at which lines begin.
    lines: Vec<usize>,
}

impl SourceText {
    /// `file` is shown as it is given.
    pub fn new(file: &Path, text: &str) -> SourceText {
        let starts = text.match_indices('\n').map(|(offset, _)| offset + 1);
        SourceText {
            file: file.into(),
            text: text.to_owned(),
            lines: std::iter::once(0).chain(starts).collect(),
        }
    }

    /// What a span of bytes holds; nothing where it does not fit the text.
    pub fn slice(&self, span: Range<usize>) -> &str {
        self.text.get(span).unwrap_or_default()
    }

    /// Where a byte stands. An offset behind the end, or within a character, is moved back.
    pub fn location(&self, offset: usize) -> Location {
        let offset = self.text.floor_char_boundary(offset);
        let line = self.lines.partition_point(|start| *start <= offset) - 1;
        Location {
            file: self.file.clone(),
            line: line + 1,
            column: self.text[self.lines[line]..offset].chars().count() + 1,
        }
    }

    /// The line that holds a byte, without its end.
    pub fn line_at(&self, offset: usize) -> &str {
        let line = self.lines.partition_point(|start| *start <= offset) - 1;
        let end = self.lines.get(line + 1).copied().unwrap_or(self.text.len());
        self.text[self.lines[line]..end].trim_end_matches(['\n', '\r'])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str, offset: usize) -> (usize, usize) {
        let location = SourceText::new(Path::new("x"), text).location(offset);
        (location.line, location.column)
    }

    #[test]
    fn columns_are_counted_in_characters() {
        assert_eq!(at("a = 1\nname = \"\u{fc}\" x", 17), (2, 11));
        assert_eq!(at("", 0), (1, 1));
        assert_eq!(at("a\n", 2), (2, 1));
        assert_eq!(at("a\n", 99), (2, 1));
        let source = SourceText::new(Path::new("x"), "one\r\ntwo");
        assert_eq!((source.line_at(1), source.line_at(6)), ("one", "two"));
    }

    proptest! {
        #[test]
        fn line_and_column_lead_back_to_the_offset(text in "[a\u{e9}\n\r ]{0,40}", offset in 0usize..50) {
            let source = SourceText::new(Path::new("x"), &text);
            let location = source.location(offset);
            let start: usize = text.split_inclusive('\n').take(location.line - 1).map(str::len).sum();
            let column: usize = text[start..].chars().take(location.column - 1).map(char::len_utf8).sum();
            prop_assert_eq!(start + column, text.floor_char_boundary(offset));
        }
    }
}
