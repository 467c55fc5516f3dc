//! CRAM-MD5 (RFC 2195): the client shows that it knows the password by a keyed hash of our challenge. Anybody who hears it can try passwords
//! on it at leisure, so that it belongs under TLS as PLAIN does.

use std::time::SystemTime;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use data_encoding::HEXLOWER_PERMISSIVE;

use super::question::{Identity, Question, Reply};
use super::{Awaited, Failure, Outcome, Pending, Step, misfit, name, random, text};

/// The block of MD5, in bytes (RFC 2104 §2).
const BLOCK: usize = 64;

/// What we sent.
pub struct Challenge(String);

impl Challenge {
    /// A challenge that was never sent before: random digits and the time (RFC 2195 §2), in the form of a message's id.
    pub fn new(hostname: &str) -> Challenge {
        let digits = u64::from_be_bytes(random());
        let time = SystemTime::UNIX_EPOCH
            .elapsed()
            .map_or(0, |since| since.as_secs());
        Challenge(format!("<{digits}.{time}@{hostname}>"))
    }

    pub fn text(&self) -> &str {
        &self.0
    }

    /// Takes `user SP digest`; the name may have spaces.
    pub fn answered(self, response: &[u8]) -> Outcome {
        let malformed = Failure::Malformed("not a name, a space, and 32 hexadecimal digits");
        let (user, digest) = text(response)?.rsplit_once(' ').ok_or(malformed)?;
        let digest = HEXLOWER_PERMISSIVE
            .decode(digest.as_bytes())
            .ok()
            .and_then(|digest| digest.try_into().ok())
            .ok_or(malformed)?;
        let identity = Identity::new(name(user)?, None);
        let question = Question::Digest {
            identity: identity.clone(),
            challenge: self.0.clone(),
            digest,
        };
        let pending = Digest {
            challenge: self,
            identity,
            digest,
        };
        Ok(Step::Ask(question, Pending(Awaited::Cram(pending))))
    }
}

/// What the client made of it.
pub struct Digest {
    challenge: Challenge,
    identity: Identity,
    digest: [u8; 16],
}

impl Digest {
    pub fn answered(self, reply: Reply) -> Outcome {
        let password = match reply {
            Reply::Password(password) => password,
            Reply::Accepted(None) => return Ok(Step::Done(self.identity)),
            Reply::Refused => return Err(Failure::Credentials),
            Reply::ScramKeys(_) => {
                return Err(Failure::Unavailable(
                    "CRAM-MD5 needs the password itself, and the keys of SCRAM were given",
                ));
            }
            _ => return misfit(),
        };
        let ours = hmac_md5(password.reveal().as_bytes(), self.challenge.0.as_bytes());
        verify_slices_are_equal(&ours, &self.digest).map_err(|_| Failure::Credentials)?;
        Ok(Step::Done(self.identity))
    }
}

/// RFC 2104 §2.
fn hmac_md5(key: &[u8], message: &[u8]) -> [u8; 16] {
    let mut block = [0; BLOCK];
    if key.len() > BLOCK {
        block[..16].copy_from_slice(&md5::compute(key).0);
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let hash = |pad: u8, message: &[u8]| {
        let mut md5 = md5::Context::new();
        md5.consume(block.map(|byte| byte ^ pad));
        md5.consume(message);
        md5.finalize().0
    };
    hash(0x5c, &hash(0x36, message))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::question::Secret;
    use super::*;

    /// RFC 2195 §2.
    #[test]
    fn tim_comes_in() {
        let response = b"tim b913a602c7eda7a495b4e6e7334d3890";
        let sent = "<1896.697170952@postoffice.reston.mci.net>";
        let told = |reply: Reply| {
            let asked = Challenge(sent.to_owned()).answered(response);
            let Ok(Step::Ask(question, pending)) = asked else {
                panic!("no question");
            };
            let Question::Digest {
                identity,
                challenge,
                digest,
            } = question
            else {
                panic!("another question");
            };
            assert_eq!((&*identity.user, &*challenge), ("tim", sent));
            assert_eq!(digest[..2], [0xb9, 0x13]);
            pending.answered(reply)
        };
        let with = |password: &str| told(Reply::Password(Secret::new(password)));
        assert!(matches!(told(Reply::Accepted(None)), Step::Done(_)));
        assert!(matches!(
            told(Reply::Refused),
            Step::Failed(Failure::Credentials)
        ));
        assert!(matches!(with("tanstaaftanstaaf"), Step::Done(tim) if tim.user == "tim"));
        for wrong in ["tanstaaftanstaa", "", "tanstaaftanstaaf "] {
            assert!(matches!(with(wrong), Step::Failed(Failure::Credentials)));
        }
    }

    /// RFC 2202 §2, the first and the sixth: a short key, and one that is longer than a block.
    #[test]
    fn keys_of_any_length_are_hashed_as_the_rfc_has_it() {
        let hex = |digest: [u8; 16]| HEXLOWER_PERMISSIVE.encode(&digest);
        assert_eq!(
            hex(hmac_md5(&[0x0b; 16], b"Hi There")),
            "9294727a3638bb1c13f48ef8158bfc9d"
        );
        let message = b"Test Using Larger Than Block-Size Key - Hash Key First";
        assert_eq!(
            hex(hmac_md5(&[0xaa; 80], message)),
            "6b1ab7fe4bd7bf8f0b62e6ce61b9d0cd"
        );
    }

    #[test]
    fn no_challenge_comes_twice() {
        let [one, two] = [(); 2].map(|()| Challenge::new("mx.example.org"));
        assert_ne!(one.text(), two.text());
        for challenge in [one, two] {
            let inner = challenge.text().strip_prefix('<').unwrap();
            let numbers = inner.strip_suffix("@mx.example.org>").unwrap();
            let (digits, time) = numbers.split_once('.').unwrap();
            assert!(digits.parse::<u64>().is_ok() && time.parse::<u64>().unwrap() > 1_700_000_000);
        }
    }

    #[test]
    fn what_is_no_digest_is_malformed() {
        for response in [
            "tim",
            "tim b913",
            " b913a602c7eda7a495b4e6e7334d3890",
            "tim b913a602c7eda7a495b4e6e7334d389x",
        ] {
            let outcome = Challenge::new("x").answered(response.as_bytes());
            assert!(
                matches!(outcome, Err(Failure::Malformed(_))),
                "{response}: {outcome:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn a_wrong_password_is_never_let_in(real in "[ -~]{1,80}", tried in "[ -~]{1,80}") {
            prop_assume!(real != tried);
            let with = |tried: &str| {
                let challenge = Challenge::new("mx.example.org");
                let digest = hmac_md5(tried.as_bytes(), challenge.text().as_bytes());
                let response = format!("tim {}", HEXLOWER_PERMISSIVE.encode(&digest));
                let Ok(Step::Ask(_, pending)) = challenge.answered(response.as_bytes()) else {
                    panic!("no question");
                };
                pending.answered(Reply::Password(Secret::new(real.as_str())))
            };
            prop_assert!(matches!(with(&tried), Step::Failed(Failure::Credentials)));
            prop_assert!(matches!(with(&real), Step::Done(_)));
        }
    }
}
