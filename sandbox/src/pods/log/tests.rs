use proptest::prelude::*;

use super::*;

async fn kept(pieces: Vec<Vec<u8>>) -> (usize, Vec<u8>) {
    let log = watch::Sender::<Log>::default();
    let (sender, written) = mpsc::channel(1);
    let write = async move {
        for piece in pieces {
            sender.send((1, piece.into())).await.unwrap();
        }
    };
    let clock = Clock::default();
    tokio::join!(write, keep(&log, written, &clock));
    let log = log.borrow();
    assert!(log.over.is_some());
    (log.end(), log.text.to_vec())
}

proptest! {
    #[test]
    fn what_is_written_in_any_pieces_is_read_back(pieces in prop::collection::vec(prop::collection::vec(
        prop_oneof![Just(b'\n'), any::<u8>()], 0..60), 0..4), long in 0..40_000usize) {
        let mut pieces = pieces;
        pieces.push(vec![b'x'; long]);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (_, text) = runtime.block_on(kept(pieces.clone()));
        prop_assert_eq!(text, pieces.concat());
    }
}

#[tokio::test]
async fn a_log_keeps_its_last_ten_mebibytes() {
    let line = [&[b'x'; 9_999][..], b"\n"].concat();
    let (end, text) = kept(vec![line.clone(); 2_000]).await;
    assert_eq!((end, text.len()), (20_000_000, KEPT));
    assert!(text.ends_with(&line));
}

#[test]
fn the_last_lines_begin_after_the_ends_of_others() {
    for (text, lines, wanted) in [
        ("a\nb\nc\n", 0, ""),
        ("a\nb\nc\n", 2, "b\nc\n"),
        ("a\nb\nc", 1, "c"),
        ("a\nb", 9, "a\nb"),
        ("\n\n", 1, "\n"),
        ("", 1, ""),
    ] {
        let mut log = Log::default();
        log.text.extend_from_slice(text.as_bytes());
        assert_eq!(&text[log.tail(lines)..], wanted, "{text:?} {lines}");
    }
}
