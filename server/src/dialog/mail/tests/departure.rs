//! A client that hangs up while plugins have its message in hands.

use tokio::sync::Notify;

use super::*;

/// A plugin that works at a hook until the client is gone, or the test says `go_on`, and then answers.
struct Worker {
    begun: Arc<Notify>,
    go_on: Arc<Notify>,
    told: Arc<Mutex<bool>>,
}

impl Worker {
    fn join(
        bed: Bed,
        hook: Hook,
        answer: impl Fn() -> Outcome + Send + Sync + 'static,
    ) -> (Bed, Worker) {
        let worker = Worker {
            begun: Arc::default(),
            go_on: Arc::default(),
            told: Arc::default(),
        };
        let (begun, go_on) = (Arc::clone(&worker.begun), Arc::clone(&worker.go_on));
        let told = Arc::clone(&worker.told);
        let answer = Arc::new(answer);
        let bed = bed.plugin(&[hook], move |call| {
            let (begun, go_on) = (Arc::clone(&begun), Arc::clone(&go_on));
            let (told, answer) = (Arc::clone(&told), Arc::clone(&answer));
            Answer::later(async move {
                begun.notify_one();
                tokio::select! {
                    () = call.departure.happened() => {}
                    () = go_on.notified() => {}
                }
                *told.lock().unwrap() = call.departure.has_happened();
                answer()
            })
        });
        (bed, worker)
    }

    fn was_told(&self) -> bool {
        *self.told.lock().unwrap()
    }
}

/// Sends a message to a plugin that is at work at `hook`, with `answer` in mind, and leaves. Gives what was queued by the plugin behind it.
async fn leave(hook: Hook, answer: impl Fn() -> Outcome + Send + Sync + 'static) -> Vec<String> {
    let (bed, worker) = Worker::join(Bed::bare().accepting(), hook, answer);
    let mut bed = bed.keeping();
    let mut dialog = bed.after(TO_DATA).await;
    dialog.send(MESSAGE).await;
    worker.begun.notified().await;
    // It ends though the test never says `go_on`.
    tokio::time::timeout(Duration::from_secs(20), dialog.hang_up())
        .await
        .unwrap();
    assert!(worker.was_told());
    bed.queued()
}

#[tokio::test]
async fn the_queue_plugin_is_told_and_nobody_else_is_asked() {
    let soft = || Outcome::skip("gone").with_verdict(Verdict::DenySoft);
    assert_eq!(leave(Hook::Queue, soft).await, [""; 0]);
    assert_eq!(leave(Hook::Queue, Outcome::declined).await, [""; 0]);
}

#[tokio::test]
async fn what_was_kept_all_the_same_is_kept() {
    let kept = Arc::new(Mutex::new(false));
    let told_of = Arc::clone(&kept);
    let answer = || Outcome::default().with_verdict(Verdict::Ok);
    let (bed, worker) = Worker::join(Bed::bare().accepting(), Hook::Queue, answer);
    let mut bed = bed.plugin(&[Hook::QueuePost], move |_| {
        *told_of.lock().unwrap() = true;
        Outcome::declined().into()
    });
    let mut dialog = bed.after(TO_DATA).await;
    dialog.send(MESSAGE).await;
    worker.begun.notified().await;
    dialog.hang_up().await;
    assert!(worker.was_told() && *kept.lock().unwrap());
}

#[tokio::test]
async fn the_walk_to_the_queue_ends_between_two_plugins() {
    for hook in [Hook::DataPostHeaders, Hook::DataPost, Hook::QueuePre] {
        let asked = Arc::new(Mutex::new(false));
        let (bed, worker) = Worker::join(Bed::new(), hook, Outcome::declined);
        let seen = Arc::clone(&asked);
        let mut bed = bed.plugin(&[hook], move |_| {
            *seen.lock().unwrap() = true;
            Outcome::declined().into()
        });
        let mut dialog = bed.after(TO_DATA).await;
        dialog.send(MESSAGE).await;
        worker.begun.notified().await;
        dialog.hang_up().await;
        assert!(worker.was_told(), "{hook}");
        assert!(!*asked.lock().unwrap(), "{hook}");
        assert_eq!(bed.queued(), [""; 0], "{hook}");
    }
}

#[tokio::test]
async fn a_client_that_only_closed_its_side_is_not_gone() {
    // RFC 2920 §3.1: QUIT may come with the message; what is behind it is the client's last word, not the end of its patience.
    let answer = || Outcome::default().with_verdict(Verdict::Ok);
    let (mut bed, worker) = Worker::join(Bed::bare().accepting(), Hook::Queue, answer);
    let mut dialog = bed.after(TO_DATA).await;
    dialog.send(MESSAGE).await;
    worker.begun.notified().await;
    dialog.send("QUIT").await;
    dialog.stream.shutdown().await.unwrap();
    // The server's turn, to see that.
    tokio::task::yield_now().await;
    worker.go_on.notify_one();
    assert!(dialog.reply().await.starts_with("250 2.0.0"));
    assert!(dialog.reply().await.starts_with("221"));
    dialog.closed().await;
    assert!(!worker.was_told());
}

#[tokio::test]
async fn what_comes_without_an_end_while_a_plugin_works_is_not_taken_in() {
    let answer = || Outcome::default().with_verdict(Verdict::Ok);
    let (mut bed, worker) = Worker::join(Bed::bare().accepting(), Hook::Queue, answer);
    let mut dialog = bed.after(TO_DATA).await;
    dialog.send(MESSAGE).await;
    worker.begun.notified().await;
    let flood = [b'x'; 1 << 10];
    let mut sent = 0;
    // More than the stream itself holds is only taken where somebody reads it.
    while sent < 1 << 20 {
        tokio::select! {
            biased;
            written = dialog.stream.write_all(&flood) => written.unwrap(),
            () = async { for _ in 0..10 { tokio::task::yield_now().await } } => break,
        }
        sent += flood.len();
    }
    assert!(sent < 64 << 10, "{sent} bytes are kept for it");
    worker.go_on.notify_one();
    assert!(dialog.reply().await.starts_with("250 2.0.0"));
    assert!(!worker.was_told());
}
