//! SCRAM-SHA-256 and SCRAM-SHA-256-PLUS.

use aws_lc_rs::{digest, pbkdf2};
use data_encoding::BASE64;

use super::super::scram::{Opening, sign};
use super::*;

/// RFC 7677 §3.
#[test]
fn scram_as_in_the_rfc() {
    let keys = {
        let salt = BASE64.decode(b"W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        derive(b"pencil", salt)
    };
    let opening = Opening::with_nonce("%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0");
    let first = opening.first(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
    let (question, pending) = asked(first.unwrap());
    assert!(
        matches!(question, Question::Secret { identity: user } if user == identity("user", None))
    );
    let (first, exchange) = challenged(pending.answered(Reply::ScramKeys(keys)));
    assert_eq!(
        first,
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    );
    let last = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
        p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    let (ours, exchange) = challenged(exchange.step(last.as_bytes()));
    assert_eq!(ours, "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    assert_eq!(done(exchange.step(b"")), identity("user", None));
}

/// A client of SCRAM, which does as it is told.
struct Client<'a> {
    mechanism: Mechanism,
    header: &'a str,
    channel: &'a [u8],
    user: &'a str,
    password: &'a str,
}

const CLIENT: Client<'static> = Client {
    mechanism: Mechanism::ScramSha256,
    header: "n,,",
    channel: b"",
    user: "user",
    password: "pencil",
};
const PLUS: Client<'static> = Client {
    mechanism: Mechanism::ScramSha256Plus,
    header: "p=tls-exporter,,",
    channel: CHANNEL,
    ..CLIENT
};

impl Client<'_> {
    fn first(&self) -> String {
        format!("{}{}", self.header, self.bare())
    }

    fn bare(&self) -> String {
        format!("n={},r=rOprNGfwEbeRWgbNEkqO", self.user)
    }

    /// The answer to our first message.
    fn last(&self, first: &str) -> String {
        let fields: Vec<_> = first.split(',').map(|field| &field[2..]).collect();
        let salt = BASE64.decode(fields[1].as_bytes()).unwrap();
        let mut salted = [0; 32];
        pbkdf2::derive(
            pbkdf2::PBKDF2_HMAC_SHA256,
            fields[2].parse().unwrap(),
            &salt,
            self.password.as_bytes(),
            &mut salted,
        );
        let binding = BASE64.encode(&[self.header.as_bytes(), self.channel].concat());
        let signed = format!("c={binding},r={}", fields[0]);
        let said = format!("{},{first},{signed}", self.bare());
        let key = sign(&salted, b"Client Key");
        let stored = digest::digest(&digest::SHA256, &key);
        let mut proof = sign(stored.as_ref().try_into().unwrap(), said.as_bytes());
        proof
            .iter_mut()
            .zip(key)
            .for_each(|(byte, key)| *byte ^= key);
        format!("{signed},p={}", BASE64.encode(&proof))
    }

    /// Talks until all is said but our own proof.
    fn talk(&self, reply: Reply, context: &Context<'_>) -> Step {
        let first = start(self.mechanism, context, Some(self.first().as_bytes()));
        let Step::Ask(_, pending) = first else {
            return first;
        };
        let (first, exchange) = challenged(pending.answered(reply));
        exchange.step(self.last(&first).as_bytes())
    }
}

#[test]
fn scram_binds_to_the_channel() {
    let step = PLUS.talk(password("pencil"), &context());
    let (_, exchange) = challenged(step);
    assert_eq!(done(exchange.step(b"")), identity("user", None));

    let same = context();
    let old_server = Context {
        plus_offered: false,
        ..same
    };
    let no_channel = Context {
        channel_binding: None,
        ..same
    };
    let with = |client: Client<'static>, header, channel| Client {
        header,
        channel,
        ..client
    };
    for (client, context, what) in [
        (
            with(PLUS, "p=tls-exporter,,", b"another"),
            same,
            "another channel",
        ),
        (with(PLUS, "p=tls-unique,,", CHANNEL), same, "another type"),
        (with(PLUS, "n,,", b""), same, "-PLUS with nothing"),
        (with(PLUS, "y,,", b""), same, "-PLUS with nothing"),
        (PLUS, no_channel, "no channel"),
        (with(CLIENT, "p=tls-exporter,,", CHANNEL), same, "no -PLUS"),
        (with(CLIENT, "y,,", b""), same, "a downgrade"),
        (with(CLIENT, "n,,", b"more"), same, "more than was said"),
    ] {
        let step = client.talk(password("pencil"), &context);
        let failure = failed(step);
        assert!(
            matches!(failure, Failure::ChannelBinding(_)),
            "{what}: {failure:?}"
        );
    }
    let step = with(CLIENT, "y,,", b"").talk(password("pencil"), &old_server);
    challenged(step);
}

#[test]
fn scram_is_over_when_the_client_says_nothing_more() {
    let over = || {
        let step = CLIENT.talk(password("pencil"), &context());
        challenged(step).1
    };
    assert_eq!(done(over().step(b"")), identity("user", None));
    assert!(matches!(failed(over().step(b"v=")), Failure::Malformed(_)));
}

#[test]
fn scram_tells_names_and_who_acts_for_whom() {
    let client = Client {
        header: "n,a=boss=2Cno=3D1,",
        user: "a=2Cb",
        ..CLIENT
    };
    let step = client.talk(password("pencil"), &context());
    assert_eq!(
        done(challenged(step).1.step(b"")),
        identity("a,b", Some("boss,no=1"))
    );
}

#[test]
fn scram_takes_a_password_prepared_or_as_it_is() {
    for (kept, typed) in [("I\u{ad}X", "IX"), ("\u{2168}", "IX"), ("a\u{7}", "a\u{7}")] {
        let client = Client {
            password: typed,
            ..CLIENT
        };
        challenged(client.talk(password(kept), &context()));
    }
}

#[test]
fn scram_wants_its_own_nonce_back() {
    let step = begin(Mechanism::ScramSha256, &CLIENT.first());
    let (first, exchange) = challenged(asked(step).1.answered(password("pencil")));
    let another = CLIENT.last(&first.replacen(",s=", "x,s=", 1));
    assert_eq!(
        failed(exchange.step(another.as_bytes())),
        Failure::Malformed("a nonce from another exchange")
    );
}

#[test]
fn what_is_not_scram_is_malformed() {
    for first in [
        "",
        "n,,",
        "n,,n=user",
        "n,,n=user,r=",
        "n,,n=,r=x",
        "n,,n=us=er,r=x",
        "n,,r=x,n=user",
        "n,,m=ext,n=user,r=x",
        "n,,n=user,r=x y",
        "n,,n=user,r=x,y",
        "n,,n=user,r=x,1=y",
    ] {
        let failure = failed(begin(Mechanism::ScramSha256, first));
        assert!(matches!(failure, Failure::Malformed(_)), "{first:?}");
    }
    let pending = || asked(begin(Mechanism::ScramSha256, "n,,n=user,r=x,e=ignored")).1;
    let (first, _) = challenged(pending().answered(password("pencil")));
    let nonce = first.split(',').next().unwrap();
    let short = format!("c=biws,{nonce},p=AAAA");
    let no_proof = format!("c=biws,{nonce}");
    for last in ["", "c=biws,r=x,p=AAAA", "p=,p=", &short, &no_proof] {
        let exchange = challenged(pending().answered(password("pencil"))).1;
        let failure = failed(exchange.step(last.as_bytes()));
        assert!(matches!(failure, Failure::Malformed(_)), "{last:?}");
    }
}

/// What a client with a wrong password sees of a user: how much salt, and which with how many iterations.
fn looks(user: &str, reply: Reply, strangers: &'static Strangers) -> (usize, String) {
    let client = Client { user, ..CLIENT };
    let opening = Opening::new(false, &context(), strangers);
    let step = opening.first(client.first().as_bytes());
    let (first, exchange) = challenged(asked(step.unwrap()).1.answered(reply));
    let wrong = exchange.step(client.last(&first).as_bytes());
    assert_eq!(failed(wrong), Failure::Credentials);
    let seen = first.split_once(',').unwrap().1;
    let salt = &seen.split(',').next().unwrap().as_bytes()[2..];
    (BASE64.decode(salt).unwrap().len(), seen.to_owned())
}

#[test]
fn a_stranger_looks_like_a_user_with_another_password() {
    let strangers: &'static Strangers = Box::leak(Box::new(Strangers::new()));
    let nobody = looks("nobody", Reply::Refused, strangers);
    assert_eq!(nobody, looks("nobody", Reply::Refused, strangers));
    assert_ne!(nobody, looks("noone", Reply::Refused, strangers));
    // The very same as if the user were there.
    assert_eq!(nobody, looks("nobody", password("secret"), strangers));
    let elsewhere: &'static Strangers = Box::leak(Box::new(Strangers::new()));
    assert_ne!(nobody, looks("nobody", Reply::Refused, elsewhere));
}

#[test]
fn a_stranger_looks_like_a_user_with_stored_keys() {
    let strangers: &'static Strangers = Box::leak(Box::new(Strangers::new()));
    let keys = ScramKeys {
        salt: vec![7; 40],
        iterations: 10_000,
        stored_key: random(),
        server_key: random(),
    };
    let (length, user) = looks("user", Reply::ScramKeys(keys), strangers);
    let (stranger_length, nobody) = looks("nobody", Reply::Refused, strangers);
    assert_eq!(length, stranger_length);
    assert!(user.ends_with(",i=10000") && nobody.ends_with(",i=10000"));
    assert_eq!(looks("nobody", Reply::Refused, strangers).1, nobody);
}

#[test]
fn keys_out_of_bounds_are_no_use() {
    let with = |iterations, salt| {
        let keys = ScramKeys {
            salt: vec![7; salt],
            iterations,
            stored_key: random(),
            server_key: random(),
        };
        let (_, pending) = asked(begin(Mechanism::ScramSha256, "n,,n=user,r=x"));
        pending.answered(Reply::ScramKeys(keys))
    };
    for (iterations, salt) in [(4095, 16), (1_000_001, 16), (4096, 0), (4096, 1025)] {
        assert!(matches!(
            failed(with(iterations, salt)),
            Failure::Unavailable(_)
        ));
    }
    challenged(with(4096, 1024));
    challenged(with(1_000_000, 1));
}

proptest! {
    // Every password costs milliseconds.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_wrong_password_is_never_let_in(real in "[ -~]{1,12}", tried in "[ -~]{1,12}", known in any::<bool>()) {
        prop_assume!(real != tried);
        let reply = if known { password(&real) } else { Reply::Refused };
        for client in [Client { password: &tried, ..CLIENT }, Client { password: &tried, ..PLUS }] {
            let step = client.talk(reply.clone(), &context());
            prop_assert_eq!(failed(step), Failure::Credentials);
            let client = Client { password: &real, ..client };
            let step = client.talk(reply.clone(), &context());
            prop_assert_eq!(matches!(step, Step::Challenge(..)), known);
        }
    }
}

proptest! {
    #[test]
    fn a_bit_that_flips_keeps_a_client_out(plus in any::<bool>(), in_first in any::<bool>(), at in any::<proptest::sample::Index>(), bit in 0..8u8) {
        let flip = |message: String| {
            let mut bytes = message.into_bytes();
            let at = at.index(bytes.len());
            bytes[at] ^= 1u8 << bit;
            bytes
        };
        let client = if plus { PLUS } else { CLIENT };
        let first = if in_first { flip(client.first()) } else { client.first().into_bytes() };
        let step = start(client.mechanism, &context(), Some(&first));
        let Step::Ask(_, pending) = step else {
            failed(step);
            return Ok(());
        };
        let (server, exchange) = challenged(pending.answered(password("pencil")));
        let last = client.last(&server);
        let last = if in_first { last.into_bytes() } else { flip(last) };
        failed(exchange.step(&last));
    }
}
