//! Whatever is done to a sealed recording, `verify` says so, and where.

#![expect(clippy::unwrap_used, reason = "these are tests")]

#[path = "common/files.rs"]
mod common;

use std::collections::BTreeMap;
use std::io::Cursor;
use std::sync::LazyLock;

use drawbridge_audit::keys::{KeySet, SigningKey};
use drawbridge_audit::recording::{
    Broken, Chunks, Identities, MANIFEST, Manifest, Place, RecoverError, Seal, Stream, Verdict,
    Verification, recover, segment_name, verify,
};
use proptest::prelude::*;
use proptest::sample::Index;

use common::{Files, opening, record};

struct Sample {
    key: SigningKey,
    files: Files,
    /// Where each chunk begins, by segment.
    chunks: BTreeMap<u32, Vec<usize>>,
}

/// Text that compresses well and text that does not, in 7 segments of up to 5 chunks.
static SAMPLE: LazyLock<Sample> = LazyLock::new(|| {
    let key = SigningKey::generate();
    let data: Vec<(Stream, Vec<u8>)> = (0..33_u32)
        .map(|n| {
            let noise: Vec<u8> = (0..n * 7 % 50)
                .map(|m| b' ' + u8::try_from((n * 31 + m * m * 17) % 90).unwrap())
                .collect();
            (
                Stream::Stdout,
                [format!("{n}: ").as_bytes(), &noise].concat(),
            )
        })
        .collect();
    let files = record(&opening(true), &data, 5, Some(&key));
    let chunks = (0..7)
        .map(|segment| {
            let mut at = 0;
            let file = &files.0[&segment_name(segment)];
            let starts = Chunks::new(Cursor::new(file)).map(|chunk| {
                let start = at;
                at += usize::try_from(chunk.unwrap().length).unwrap();
                start
            });
            (segment, starts.collect())
        })
        .collect();
    Sample { key, files, chunks }
});

impl Sample {
    fn verify(&self, files: &Files) -> Verification {
        let keys: KeySet = [self.key.public()].into_iter().collect();
        verify(files, &keys, &Identities::none(), &mut |_| {}).unwrap()
    }

    fn broken(&self, files: &Files) -> Broken {
        match self.verify(files) {
            Verification::Broken(broken) => broken,
            other => panic!("not noticed: {other:?}"),
        }
    }

    /// Which chunk holds byte `at` of `segment`.
    fn chunk(&self, segment: u32, at: usize) -> u32 {
        let starts = &self.chunks[&segment];
        u32::try_from(starts.partition_point(|start| *start <= at) - 1).unwrap()
    }

    /// The bytes of each chunk of `segment`.
    fn pieces(&self, segment: u32) -> Vec<Vec<u8>> {
        let file = &self.files.0[&segment_name(segment)];
        let starts = &self.chunks[&segment];
        let end = file.len();
        let ends = starts[1..].iter().chain([&end]);
        starts
            .iter()
            .zip(ends)
            .map(|(start, end)| file[*start..*end].to_vec())
            .collect()
    }

    fn with(&self, segment: u32, file: Vec<u8>) -> Files {
        let mut files = self.files.clone();
        files.0.insert(segment_name(segment), file);
        files
    }
}

fn segment_of(place: Place) -> Option<u32> {
    match place {
        Place::Manifest => None,
        Place::Segment(segment) | Place::Chunk { segment, .. } | Place::Line { segment, .. } => {
            Some(segment)
        }
    }
}

fn chunk_of(place: Place) -> Option<(u32, u32)> {
    match place {
        Place::Chunk { segment, chunk } | Place::Line { segment, chunk, .. } => {
            Some((segment, chunk))
        }
        Place::Manifest | Place::Segment(_) => None,
    }
}

#[test]
fn the_sample_is_whole_until_somebody_touches_it() {
    let sample = &*SAMPLE;
    assert!(matches!(
        sample.verify(&sample.files),
        Verification::Sealed(_)
    ));
    assert_eq!(sample.files.0.len(), 8);
    assert_eq!(sample.chunks[&0].len(), 5);
}

#[test]
fn every_byte_of_a_segment_is_covered() {
    let sample = &*SAMPLE;
    for segment in [0, 3, 6] {
        let whole = &sample.files.0[&segment_name(segment)];
        for at in 0..whole.len() {
            let mut file = whole.clone();
            file[at] ^= 1;
            let broken = sample.broken(&sample.with(segment, file));
            let chunk = sample.chunk(segment, at);
            assert_eq!(
                chunk_of(broken.place),
                Some((segment, chunk)),
                "byte {at}: {broken}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_changed_byte_is_found_in_its_chunk(segment in 0..7_u32, at in any::<Index>(), flip in 1..=255_u8) {
        let sample = &*SAMPLE;
        let mut file = sample.files.0[&segment_name(segment)].clone();
        let at = at.index(file.len());
        file[at] ^= flip;
        let broken = sample.broken(&sample.with(segment, file));
        prop_assert_eq!(chunk_of(broken.place), Some((segment, sample.chunk(segment, at))), "{}", broken);
    }

    #[test]
    fn a_changed_byte_of_the_manifest_is_found(at in any::<Index>(), flip in 1..=255_u8) {
        let sample = &*SAMPLE;
        let mut files = sample.files.clone();
        let manifest = files.0.get_mut(MANIFEST).unwrap();
        let at = at.index(manifest.len());
        manifest[at] ^= flip;
        prop_assert_eq!(sample.broken(&files).place, Place::Manifest);
    }

    #[test]
    fn a_segment_cut_short_is_found_where_it_was_cut(segment in 0..7_u32, at in any::<Index>()) {
        let sample = &*SAMPLE;
        let mut file = sample.files.0[&segment_name(segment)].clone();
        let at = at.index(file.len());
        file.truncate(at);
        let broken = sample.broken(&sample.with(segment, file));
        prop_assert_eq!(segment_of(broken.place), Some(segment), "{}", broken);
        if let Some((_, chunk)) = chunk_of(broken.place) {
            prop_assert_eq!(chunk, sample.chunk(segment, at));
        }
    }

    #[test]
    fn a_dropped_repeated_or_swapped_chunk_is_found(
        segment in 0..7_u32, one in any::<Index>(), other in any::<Index>(), how in 0..3,
    ) {
        let sample = &*SAMPLE;
        let mut pieces = sample.pieces(segment);
        let (one, other) = (one.index(pieces.len()), other.index(pieces.len()));
        match how {
            0 => drop(pieces.remove(one)),
            1 => pieces.insert(one, pieces[other].clone()),
            _ => pieces.swap(one, other),
        }
        prop_assume!(how != 2 || one != other);
        let broken = sample.broken(&sample.with(segment, pieces.concat()));
        prop_assert_eq!(segment_of(broken.place), Some(segment), "{}", broken);
    }

    #[test]
    fn a_dropped_segment_is_named(segment in 0..7_u32) {
        let sample = &*SAMPLE;
        let mut files = sample.files.clone();
        files.0.remove(&segment_name(segment));
        prop_assert_eq!(sample.broken(&files).place, Place::Segment(segment));
    }

    #[test]
    fn swapped_segments_are_found_at_the_first(one in 0..6_u32, further in 1..7_u32) {
        let other = (one + further).min(6);
        let sample = &*SAMPLE;
        let mut files = sample.with(one, sample.files.0[&segment_name(other)].clone());
        files.0.insert(segment_name(other), sample.files.0[&segment_name(one)].clone());
        prop_assert_eq!(segment_of(sample.broken(&files).place), Some(one));
    }

    #[test]
    fn a_recorder_killed_anywhere_leaves_what_can_be_sealed(segment in 0..7_u32, at in any::<Index>()) {
        let sample = &*SAMPLE;
        let manifest = Manifest::read(&sample.files.0[MANIFEST]).unwrap();
        let mut files = Files::default();
        for number in 0..=segment {
            let name = segment_name(number);
            files.0.insert(name.clone(), sample.files.0[&name].clone());
        }
        let last = files.0.get_mut(&segment_name(segment)).unwrap();
        let at = at.index(last.len() + 1);
        last.truncate(at);
        let readers: Vec<_> = files.0.values().map(|file| Ok(Cursor::new(file.clone()))).collect();
        let recovered = recover(&manifest.opening, readers).unwrap();
        let mut kept = recovered.writer.length();
        if let Some(cut) = recovered.cut {
            kept = cut.keep;
            prop_assert_eq!((cut.segment, cut.keep + cut.lost), (segment, at as u64));
            let name = segment_name(cut.segment);
            if cut.keep == 0 {
                files.0.remove(&name);
            } else {
                files.0.get_mut(&name).unwrap().truncate(usize::try_from(cut.keep).unwrap());
            }
        }
        let end = sample.files.0[&segment_name(segment)].len();
        let ends = sample.chunks[&segment].iter().chain([&end]);
        let whole = ends.filter(|end| **end <= at).max().unwrap();
        prop_assert_eq!(kept, *whole as u64);
        let sealed = recovered.writer.seal(Seal {
            verdict: Verdict::Interrupted { reason: "gateway ended".to_owned() },
            end: None,
            transfers: Vec::new(),
            gaps: Vec::new(),
            cut: recovered.cut.map_or(0, |cut| cut.lost),
            sealed_by: "gateway-1".to_owned(),
        });
        files.0.insert(MANIFEST.to_owned(), sealed.sign(&sample.key));
        match sample.verify(&files) {
            Verification::Sealed(sealed) => {
                let interrupted = matches!(sealed.manifest.verdict, Verdict::Interrupted { .. });
                prop_assert!(interrupted);
            }
            other => prop_assert!(false, "{other:?}"),
        }
    }
}

#[test]
fn a_segment_that_nobody_listed_is_found() {
    let sample = &*SAMPLE;
    let files = sample.with(7, sample.files.0[&segment_name(6)].clone());
    assert_eq!(sample.broken(&files).place, Place::Manifest);
}

#[test]
fn another_key_vouches_for_nothing() {
    let sample = &*SAMPLE;
    let manifest = Manifest::read(&sample.files.0[MANIFEST]).unwrap();
    let mut files = sample.files.clone();
    let forged = manifest.sign(&SigningKey::generate());
    files.0.insert(MANIFEST.to_owned(), forged);
    assert_eq!(sample.broken(&files).place, Place::Manifest);
}

#[test]
fn a_manifest_of_another_recording_does_not_fit() {
    let sample = &*SAMPLE;
    let data = vec![(Stream::Stdout, b"else".to_vec()); 33];
    let mut files = record(&opening(true), &data, 5, Some(&sample.key));
    files
        .0
        .insert(MANIFEST.to_owned(), sample.files.0[MANIFEST].clone());
    assert!(chunk_of(sample.broken(&files).place).is_some());
}

#[test]
fn a_recording_without_a_manifest_says_so_and_never_that_it_is_whole() {
    let sample = &*SAMPLE;
    let mut files = sample.files.clone();
    files.0.remove(MANIFEST);
    assert!(
        matches!(sample.verify(&files), Verification::Unsealed(unsealed)
        if unsealed.segments == 7 && unsealed.cut == 0)
    );
    let last = files.0.get_mut(&segment_name(6)).unwrap();
    last.pop();
    assert!(matches!(sample.verify(&files), Verification::Unsealed(unsealed) if unsealed.cut > 0));
    files.0.remove(&segment_name(2));
    assert!(matches!(sample.verify(&files), Verification::Broken(broken)
        if broken.place == Place::Segment(2)));
}

#[test]
fn damage_in_the_middle_is_not_taken_for_a_crash() {
    let sample = &*SAMPLE;
    let manifest = Manifest::read(&sample.files.0[MANIFEST]).unwrap();
    let mut files = sample.files.clone();
    files.0.remove(MANIFEST);
    files.0.get_mut(&segment_name(2)).unwrap().pop();
    let readers = files.0.values().map(|file| Ok(Cursor::new(file.clone())));
    assert!(matches!(
        recover(&manifest.opening, readers),
        Err(RecoverError::Damaged { segment: 2, .. })
    ));
}
