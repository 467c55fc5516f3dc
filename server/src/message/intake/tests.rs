use std::path::Path;
use std::time::Duration;

use futures_util::FutureExt;
use gatepost_protocol::Message;
use proptest::prelude::*;

use super::*;
use crate::config::BareNewlines;
use crate::message::data::{DataReader, Framing, normalized};
use crate::message::spool::tests::config;

fn files(dir: &Path) -> usize {
    std::fs::read_dir(dir).unwrap().count()
}

fn spool(dir: &Path, per_message: usize, budget: usize) -> Arc<Spool> {
    Arc::new(Spool::open(&config(dir, per_message, budget)).unwrap())
}

/// Feeds a stream, so many bytes at a time, until the end of data.
async fn feed(intake: &mut Intake, mut stream: &[u8], step: usize) {
    let mut reader = DataReader::new(Framing::Dots, BareNewlines::Keep, usize::MAX);
    loop {
        let room = intake.room().await;
        let read = room.len().min(step).min(stream.len());
        assert!(read > 0, "the end of data never came");
        room[..read].copy_from_slice(&stream[..read]);
        stream = &stream[read..];
        if intake.take(read, |block| reader.scan(block)).ended {
            return;
        }
    }
}

fn message(size: usize) -> (Vec<u8>, Vec<u8>) {
    let line = b".A line, and a dot before it that has to go and come back.\r\n";
    let message: Vec<u8> = line.iter().copied().cycle().take(size).collect();
    let mut message = message[..message.len() - message.len().min(2)].to_vec();
    message.extend_from_slice(b"\r\n");
    let mut stream = String::from_utf8(message.clone())
        .unwrap()
        .replace("\r\n.", "\r\n..");
    if stream.starts_with('.') {
        stream.insert(0, '.');
    }
    stream.push_str(".\r\nQUIT\r\n");
    (message, stream.into_bytes())
}

async fn whole(spooled: &Spooled) -> Bytes {
    spooled.read(0, usize::MAX).await.unwrap()
}

#[tokio::test]
async fn what_is_read_is_what_was_sent_in_memory_and_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let spool = spool(dir.path(), 300_000, 1 << 20);
    for (size, on_disk) in [
        (0, 0),
        (2_000, 0),
        (8_192, 0),
        (8_193, 0),
        (300_000, 0),
        (300_001, 1),
        (1_000_000, 1),
    ] {
        for step in [977, usize::MAX] {
            let (message, stream) = message(size);
            let mut intake = spool.begin();
            feed(&mut intake, &stream, step).await;
            assert!(b"QUIT\r\n".starts_with(intake.give_back()));
            let mut spooled = intake.finish().await.unwrap();
            assert_eq!(spooled.size(), message.len() as u64);
            assert_eq!(whole(&spooled).await, message);
            assert_eq!(files(dir.path()), on_disk, "size {size}");
            let path = spooled.path().await.unwrap();
            assert_eq!(std::fs::read(path).unwrap(), message);
            assert_eq!(whole(&spooled).await, message);
            drop(spooled);
            assert_eq!(files(dir.path()), 0);
        }
    }
    assert_eq!(spool.memory.used(), 0);
}

#[tokio::test]
async fn what_is_replaced_by_more_is_kept_in_memory_and_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    for per_message in [0, 10 << 20] {
        let spool = spool(dir.path(), per_message, 10 << 20);
        let stream = [&b"\n".repeat(700_000)[..], b"x\r\n.\r\n"].concat();
        for step in [4096, usize::MAX] {
            let mut reader = DataReader::new(Framing::Dots, BareNewlines::Normalize, 100);
            let mut intake = spool.begin();
            let (mut rest, mut ended) = (&stream[..], false);
            while !ended {
                let room = intake.room().await;
                let read = room.len().min(step).min(rest.len());
                room[..read].copy_from_slice(&rest[..read]);
                rest = &rest[read..];
                let scan = intake.take(read, |block| reader.scan(block));
                let lines = normalized(intake.fresh());
                intake.replace(&lines).await;
                ended = scan.ended;
            }
            let expected = [&b"\r\n".repeat(700_000)[..], b"x\r\n"].concat();
            let spooled = intake.finish().await.unwrap();
            assert_eq!(spooled.size(), expected.len() as u64);
            assert!(whole(&spooled).await == expected);
        }
    }
}

#[tokio::test]
async fn without_budget_messages_go_to_disk_and_memory_stays_small() {
    let dir = tempfile::tempdir().unwrap();
    let spool = spool(dir.path(), 1 << 20, 16 * 1024);
    let (message, stream) = message(2_000_000);
    let mut intakes = Vec::new();
    for _ in 0..4 {
        let mut intake = spool.begin();
        feed(&mut intake, &stream, usize::MAX).await;
        assert!(spool.memory.used() <= 16 * 1024);
        intakes.push(intake);
    }
    for intake in intakes {
        let spooled = intake.finish().await.unwrap();
        assert_eq!(whole(&spooled).await, message);
    }
    assert_eq!((files(dir.path()), spool.memory.used()), (0, 0));
}

#[tokio::test]
async fn nothing_is_left_of_what_is_dropped_halfway() {
    let dir = tempfile::tempdir().unwrap();
    let spool = spool(dir.path(), 0, 1 << 20);
    let (_, stream) = message(500_000);
    let mut intake = spool.begin();
    feed(&mut intake, &stream, usize::MAX).await;
    assert_eq!(files(dir.path()), 1);
    drop(intake);
    assert_eq!((files(dir.path()), spool.memory.used()), (0, 0));
    let mut intake = spool.begin();
    feed(&mut intake, &stream, usize::MAX).await;
    intake.discard();
    assert_eq!(files(dir.path()), 0);
    // Dropped in the middle of a write: the file goes when the write is done.
    let mut intake = spool.begin();
    let _ = feed(&mut intake, &stream, usize::MAX).now_or_never();
    drop(intake);
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while files(dir.path()) + spool.memory.used() > 0 {
        assert!(std::time::Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_fails_the_message_and_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("spool");
    let spool = spool(&folder, 0, 1 << 20);
    std::fs::remove_dir(&folder).unwrap();
    let (message, stream) = message(400_000);
    let mut intake = spool.begin();
    feed(&mut intake, &stream, usize::MAX).await;
    let error = intake.finish().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    std::fs::create_dir(&folder).unwrap();
    let mut intake = spool.begin();
    feed(&mut intake, &stream, usize::MAX).await;
    assert_eq!(whole(&intake.finish().await.unwrap()).await, message);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_range_reads_the_same_from_memory_and_from_disk(size in 0usize..400_000, offset in 0u64..450_000, length in 0usize..450_000) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (message, stream) = message(size);
            let from = message.len().min(offset as usize);
            let expected = &message[from..message.len().min(from + length)];
            for per_message in [0, 1 << 20] {
                let dir = tempfile::tempdir().unwrap();
                let mut intake = spool(dir.path(), per_message, 1 << 20).begin();
                feed(&mut intake, &stream, usize::MAX).await;
                let spooled = intake.finish().await.unwrap();
                assert_eq!(spooled.read(offset, length).await.unwrap(), expected);
            }
        });
    }
}
