//! Immune, whitelisted and relay clients.

use super::*;

fn with_immune(immune: Immune) -> Policy {
    Policy {
        immune: Some(immune),
        ..Policy::default()
    }
}

fn friend() -> Change {
    Change::whitelisted(Scope::Connection, "friend")
}

#[tokio::test]
async fn the_flags_are_honoured_unless_the_line_says_not_to() {
    for (immune, name, is_asked, verdict) in [
        (Immune::Skip, "skip", false, Verdict::Declined),
        (Immune::Tolerate, "tolerate", true, Verdict::Declined),
        (Immune::Ignore, "false", true, Verdict::Deny),
    ] {
        let host = Arc::new(Recorder::default());
        let hooks = [Hook::Mail];
        let chain = Chain::new(vec![foreign(
            "fail-a",
            &host,
            &hooks,
            &[],
            with_immune(immune),
        )]);
        let mut visit = Visit::default();
        let stranger = run(&chain, &mut visit, Hook::Mail).await;
        assert_eq!(stranger.verdict, Verdict::Deny, "{name}");
        host.asked.lock().unwrap().clear();
        let set: [fn(&mut Session); 5] = [
            |session| session.connection.relay_client = true,
            |session| session.connection.immune = Some("kin".to_owned()),
            |session| session.connection.whitelisted = Some("friend".to_owned()),
            |session| session.transaction.immune = Some("this once".to_owned()),
            |session| session.transaction.whitelisted = Some("a good sender".to_owned()),
        ];
        for set in set {
            let mut visit = Visit::default();
            set(&mut visit.session);
            let decision = run(&chain, &mut visit, Hook::Mail).await;
            assert_eq!(decision.verdict, verdict, "{name}");
            let asked = std::mem::take(&mut *host.asked.lock().unwrap());
            assert_eq!(!asked.is_empty(), is_asked, "{name}");
        }
    }
}

#[tokio::test]
async fn who_is_spared_is_in_no_request_and_its_neighbours_keep_their_order() {
    let host = Arc::new(Recorder::default());
    let hooks = [Hook::Mail];
    let spared = with_immune(Immune::Skip);
    let chain = Chain::new(vec![
        foreign("a", &host, &hooks, &[], Policy::default()),
        foreign("fail-b", &host, &hooks, &[], spared),
        foreign("fail-c", &host, &hooks, &[], Policy::default()),
        foreign("d", &host, &hooks, &[], Policy::default()),
        foreign("ok-e", &host, &hooks, &[], Policy::default()),
    ]);
    let mut visit = Visit::default();
    friend().apply(&mut visit.session, "x").unwrap();
    let decision = run(&chain, &mut visit, Hook::Mail).await;
    assert_eq!(decision.plugin.as_deref(), Some("ok-e"));
    assert_eq!(
        *host.asked.lock().unwrap(),
        ["mail a []", "mail fail-c,d,ok-e []", "mail d,ok-e []"]
    );
}

#[tokio::test]
async fn what_a_neighbour_of_the_same_request_vouches_for_counts_for_those_behind_it() {
    /// Vouches for the client, and fails it in the same breath.
    struct Both;

    impl Host for Both {
        fn ask<'a>(
            &'a self,
            plugins: &'a [&'a str],
            _wants: &'a Wants,
            _call: &'a Call<'a>,
        ) -> BoxFuture<'a, Vec<Outcome>> {
            let outcomes = plugins.iter().map(|plugin| match *plugin {
                "vouch" => Outcome::pass("").with_change(friend()),
                _ => Outcome::fail("no").with_change(Change::Karma { add: -1 }),
            });
            let outcomes = outcomes.collect();
            Box::pin(async move { outcomes })
        }

        fn tell(&self, _plugins: &[&str], _wants: &Wants, _call: &Call<'_>) {}
    }

    struct Member(Arc<Both>);

    impl Plugin for Member {
        fn subscriptions(&self) -> Vec<Subscription> {
            vec![Subscription::to(Hook::Mail, &[])]
        }

        fn call<'a>(&'a self, _call: &'a Call<'a>) -> Answer<'a> {
            Outcome::declined().into()
        }

        fn host(&self) -> Option<Arc<dyn Host>> {
            Some(self.0.clone())
        }
    }

    for (immune, karma) in [(Immune::Skip, 0), (Immune::Tolerate, -1)] {
        let both = Arc::new(Both);
        let member = |name: &str, policy| Entry {
            name: name.into(),
            plugin: Arc::new(Member(both.clone())),
            rules: Rules::new(policy, Policy::default(), None, None),
            origins: Default::default(),
            when: None,
        };
        let chain = Chain::new(vec![
            member("vouch", Policy::default()),
            member("fails", with_immune(immune)),
        ]);
        let mut visit = Visit::default();
        let decision = run(&chain, &mut visit, Hook::Mail).await;
        assert_eq!(decision.verdict, Verdict::Declined);
        assert_eq!(visit.session.connection.karma, karma);
    }
}

#[tokio::test]
async fn whoever_has_a_flag_by_now_is_not_refused_for_what_was_deferred_before() {
    let refused = Policy {
        reject: Some(Reject::Naughty),
        ..Policy::default()
    };
    let host = Arc::new(Recorder::default());
    let chain = Chain::new(vec![
        foreign("fail-a", &host, &[Hook::Connect], &[], refused),
        local("late", Hook::Helo, |_| {
            Outcome::defer(Hook::DataPost, async { Outcome::fail("too late") })
        }),
    ]);
    for (is_friend, verdict) in [(false, Verdict::Deny), (true, Verdict::Declined)] {
        let mut visit = Visit::default();
        run(&chain, &mut visit, Hook::Helo).await;
        if is_friend {
            friend().apply(&mut visit.session, "x").unwrap();
        }
        run(&chain, &mut visit, Hook::Connect).await;
        assert_eq!(visit.session.connection.naughty.is_none(), is_friend);
        let decision = run(&chain, &mut visit, Hook::DataPost).await;
        assert_eq!(decision.verdict, verdict);
    }
}

#[tokio::test]
async fn nothing_that_a_friend_sends_is_refused_at_any_hook_before_queue() {
    for hook in [
        Hook::Connect,
        Hook::Helo,
        Hook::Ehlo,
        Hook::Mail,
        Hook::Rcpt,
        Hook::Data,
        Hook::DataHeadersEnd,
        Hook::DataLines,
        Hook::DataPostHeaders,
        Hook::DataPost,
        Hook::QueuePre,
    ] {
        let chain = Chain::new(vec![local("x", hook, |_| Outcome::fail("spam"))]);
        for (is_friend, verdict) in [(false, Verdict::Deny), (true, Verdict::Declined)] {
            let mut visit = Visit::default();
            if is_friend {
                friend().apply(&mut visit.session, "x").unwrap();
            }
            let decision = run(&chain, &mut visit, hook).await;
            assert_eq!(decision.verdict, verdict, "{hook}");
        }
    }
}

#[tokio::test]
async fn errors_and_hooks_that_judge_nobody_know_no_flags() {
    let chain =
        |hook, outcome: fn() -> Outcome| Chain::new(vec![local("x", hook, move |_| outcome())]);
    for (hook, outcome) in [
        (Hook::Mail, (|| Outcome::error("broken")) as fn() -> Outcome),
        (Hook::Auth, || {
            Outcome::declined().with_verdict(Verdict::DenySoft)
        }),
        (Hook::Queue, || {
            Outcome::declined().with_verdict(Verdict::DenySoft)
        }),
        (Hook::RecipientValid, || {
            Outcome::declined().with_verdict(Verdict::DenySoft)
        }),
    ] {
        let mut visit = Visit::default();
        visit.session.connection.relay_client = true;
        let decision = run(&chain(hook, outcome), &mut visit, hook).await;
        assert_eq!(decision.verdict, Verdict::DenySoft, "{hook}");
    }
}
