//! Frames: a length and one MessagePack map with string keys (docs/protocol.md §2).
//!
//! Everything that a stranger could get wrong is checked here, before serde sees a byte, so that no later code has to wonder.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The longest frame that is sent or taken, in bytes, without the four of its length.
pub const MAX_FRAME: usize = 1_048_576;
/// How deep maps and lists may nest.
pub const MAX_DEPTH: usize = 16;
/// Integers go from −2⁵³ to 2⁵³, so that every language reads them exactly.
pub const MAX_INTEGER: i64 = 1 << 53;

/// What is wrong with a frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Length 0.
    #[error("an empty frame")]
    Empty,
    /// Length above [`MAX_FRAME`].
    #[error("a frame of {0} bytes; at most {MAX_FRAME} are taken")]
    TooLong(usize),
    /// The channel or the frame ends within something.
    #[error("the frame ends too early")]
    Truncated,
    /// Bytes behind the map.
    #[error("bytes behind the map")]
    Trailing,
    /// Something else than a map.
    #[error("the frame is no map")]
    NotAMap,
    /// Nested deeper than [`MAX_DEPTH`].
    #[error("nested deeper than {MAX_DEPTH}")]
    Depth,
    /// A key that is no text.
    #[error("a key that is no text")]
    BadKey,
    /// A key that stands twice in one map.
    #[error("the key `{0}` stands twice")]
    DuplicateKey(String),
    /// An extension type.
    #[error("an ext type")]
    Ext,
    /// A floating-point number.
    #[error("a float")]
    Float,
    /// An integer beyond 2⁵³.
    #[error("an integer beyond 2^53")]
    IntegerRange,
    /// Not MessagePack, or not what the message's schema says.
    #[error("{0}")]
    Malformed(String),
}

/// A message of a kind: a struct that becomes a map of at most 14 keys.
pub trait Kind: Serialize + DeserializeOwned {
    /// The value of the key `kind`.
    const KIND: &'static str;
}

/// Makes a whole frame, length included.
pub fn encode<T: Kind>(message: &T) -> Result<Vec<u8>, FrameError> {
    let mut frame = Vec::with_capacity(256);
    // The length and the map's marker are known at the end; the key `kind` goes first.
    frame.extend_from_slice(&[0; 5]);
    frame.extend_from_slice(b"\xa4kind");
    frame.push(0xa0 | u8::try_from(T::KIND.len()).expect("kinds are short words"));
    frame.extend_from_slice(T::KIND.as_bytes());
    let body = frame.len();
    rmp_serde::encode::write_named(&mut frame, message)
        .map_err(|error| FrameError::Malformed(error.to_string()))?;
    let keys = frame[body] & 0x0f;
    assert!(
        frame[body] & 0xf0 == 0x80 && keys < 15,
        "a message is a map of at most 14 keys"
    );
    frame[4] = 0x80 | (keys + 1);
    frame.remove(body);
    let length = frame.len() - 4;
    if length > MAX_FRAME {
        return Err(FrameError::TooLong(length));
    }
    frame[..4].copy_from_slice(&u32::try_from(length).expect("MAX_FRAME fits").to_be_bytes());
    Ok(frame)
}

/// Reads a message from a payload whose kind is known.
pub fn decode<T: DeserializeOwned>(payload: &[u8]) -> Result<T, FrameError> {
    rmp_serde::from_slice(payload).map_err(|error| FrameError::Malformed(error.to_string()))
}

/// The length that the first four bytes of a frame announce, if it is a good one.
pub fn length(head: [u8; 4]) -> Result<usize, FrameError> {
    match u32::from_be_bytes(head) as usize {
        0 => Err(FrameError::Empty),
        long if long > MAX_FRAME => Err(FrameError::TooLong(long)),
        length => Ok(length),
    }
}

/// Checks a payload against every rule of §2 and returns the value of `kind` (empty where there is none).
pub fn check(payload: &[u8]) -> Result<&str, FrameError> {
    let mut walker = Walker {
        rest: payload,
        kind: "",
    };
    let marker = *payload.first().ok_or(FrameError::Empty)?;
    if !matches!(marker, 0x80..=0x8f | 0xde | 0xdf) {
        return Err(FrameError::NotAMap);
    }
    walker.value(0)?;
    if walker.rest.is_empty() {
        Ok(walker.kind)
    } else {
        Err(FrameError::Trailing)
    }
}

struct Walker<'a> {
    rest: &'a [u8],
    kind: &'a str,
}

impl<'a> Walker<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], FrameError> {
        let (taken, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or(FrameError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn number(&mut self, width: usize) -> Result<u64, FrameError> {
        Ok(self
            .take(width)?
            .iter()
            .fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn size(&mut self, width: usize) -> Result<usize, FrameError> {
        usize::try_from(self.number(width)?).map_err(|_| FrameError::Truncated)
    }

    fn value(&mut self, depth: usize) -> Result<(), FrameError> {
        let marker = self.take(1)?[0];
        match marker {
            0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => Ok(()),
            0x80..=0x8f => self.map(usize::from(marker & 15), depth),
            0x90..=0x9f => self.list(usize::from(marker & 15), depth),
            0xa0..=0xbf => self.take(usize::from(marker & 31)).map(drop),
            0xc1 => Err(FrameError::Malformed("0xc1 begins no value".to_owned())),
            0xc4 | 0xc5 | 0xc6 => {
                let size = self.size(1 << (marker - 0xc4))?;
                self.take(size).map(drop)
            }
            0xc7..=0xc9 | 0xd4..=0xd8 => Err(FrameError::Ext),
            0xca | 0xcb => Err(FrameError::Float),
            0xcc..=0xce => self.number(1 << (marker - 0xcc)).map(drop),
            0xcf => match self.number(8)? {
                0..=0x20_0000_0000_0000 => Ok(()),
                _ => Err(FrameError::IntegerRange),
            },
            0xd0..=0xd2 => self.number(1 << (marker - 0xd0)).map(drop),
            0xd3 => {
                let number = self.number(8)?.cast_signed();
                if (-MAX_INTEGER..=MAX_INTEGER).contains(&number) {
                    Ok(())
                } else {
                    Err(FrameError::IntegerRange)
                }
            }
            0xd9..=0xdb => {
                let size = self.size(1 << (marker - 0xd9))?;
                self.take(size).map(drop)
            }
            0xdc | 0xdd => {
                let size = self.size(2 << (marker - 0xdc))?;
                self.list(size, depth)
            }
            0xde | 0xdf => {
                let size = self.size(2 << (marker - 0xde))?;
                self.map(size, depth)
            }
        }
    }

    fn list(&mut self, size: usize, depth: usize) -> Result<(), FrameError> {
        if depth >= MAX_DEPTH {
            return Err(FrameError::Depth);
        }
        (0..size).try_for_each(|_| self.value(depth + 1))
    }

    fn map(&mut self, size: usize, depth: usize) -> Result<(), FrameError> {
        if depth >= MAX_DEPTH {
            return Err(FrameError::Depth);
        }
        // Every entry takes two bytes at least: a claimed size beyond that cannot be met, and must not be reserved.
        if size > self.rest.len() / 2 {
            return Err(FrameError::Truncated);
        }
        let mut keys: Vec<&[u8]> = Vec::with_capacity(size);
        for _ in 0..size {
            let key = self.key()?;
            let before = self.rest;
            self.value(depth + 1)?;
            if depth == 0 && key == b"kind" {
                let text = &before[..before.len() - self.rest.len()];
                self.kind = short_text(text).unwrap_or_default();
            }
            keys.push(key);
        }
        // Notes can make a map large; sorting finds a double in any size.
        if size > 8 {
            keys.sort_unstable();
            if let Some(double) = keys.windows(2).find(|pair| pair[0] == pair[1]) {
                return Err(FrameError::DuplicateKey(
                    String::from_utf8_lossy(double[0]).into_owned(),
                ));
            }
        } else if let Some((_, double)) = keys
            .iter()
            .enumerate()
            .find(|(index, key)| keys[..*index].contains(key))
        {
            return Err(FrameError::DuplicateKey(
                String::from_utf8_lossy(double).into_owned(),
            ));
        }
        Ok(())
    }

    fn key(&mut self) -> Result<&'a [u8], FrameError> {
        let marker = self.take(1)?[0];
        let size = match marker {
            0xa0..=0xbf => usize::from(marker & 31),
            0xd9 | 0xc4 => self.size(1)?,
            0xda | 0xc5 => self.size(2)?,
            0xdb | 0xc6 => self.size(4)?,
            _ => return Err(FrameError::BadKey),
        };
        self.take(size)
    }
}

/// The text of a MessagePack value of at most 255 bytes.
fn short_text(value: &[u8]) -> Option<&str> {
    let text = match *value.first()? {
        0xa0..=0xbf => &value[1..],
        0xd9 | 0xc4 => &value[2..],
        _ => return None,
    };
    std::str::from_utf8(text).ok()
}
